"""What is asked of a vLLM server, and what of its answers is believed."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, TypeVar

import pytest
import torch

from agentrl.core.errors import DeadlineError, EngineError
from agentrl.core.types import Finish, SamplingParams
from agentrl.engines.vllm.client import AnswerError, Client, ServerError
from support.fake_vllm import FakeVllm, Fault, fake
from support.models import logprobs, shared_policy

T = TypeVar("T")
STOP = 0
PROMPT = [5, 9, 2, 30]
PARAMS = SamplingParams(temperature=0.7, max_tokens=12, stop_ids=frozenset({STOP}), seed=2**62 + 5)
SOON_S = 5.0


def ask(server: FakeVllm, verb: Callable[[Client], Awaitable[T]], key: str = "") -> T:
    """What `verb` does with a client that has greeted the server."""

    async def run() -> T:
        client = Client(server.url, key, vocabulary=int(server.module.config.vocab_size))
        try:
            await client.greet(timeout_s=SOON_S)
            await client.name_weights(3, timeout_s=SOON_S)
            return await verb(client)
        finally:
            await client.close()

    return asyncio.run(run())


KINDS: list[dict[str, Any]] = [
    {"speaks": "0.33.0"},
    {"speaks": "0.32.0"},
    {"speaks": "0.31.0"},
    {"speaks": "0.32.0", "scale_out": False},
    {"speaks": "0.31.0", "scale_out": False, "schedules": False},
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(map(str, kind.values())))
def test_tokens_come_with_the_tempered_logprobs_of_the_model_and_are_the_seeds_own(
    kind: dict[str, Any],
) -> None:
    with fake(shared_policy(), **kind) as server:

        async def verb(client: Client) -> Any:
            one = await client.generate(PROMPT, PARAMS, timeout_s=SOON_S, priority=7)
            again = await client.generate(PROMPT, PARAMS, timeout_s=SOON_S)
            other = await client.generate(PROMPT, replace(PARAMS, seed=1), timeout_s=SOON_S)
            return one, again, other

        one, again, other = ask(server, verb)
    assert one == again
    assert one.ids != other.ids
    exact = logprobs(shared_policy().module, [*PROMPT, *one.ids], 0.7)[len(PROMPT) - 1 :]
    assert torch.tensor(one.logprobs).sub(exact).abs().max() < 1e-5
    tells = kind["speaks"] != "0.31.0" and kind.get("scale_out", True)
    assert one.versions == (((3, len(one.ids)),) if tells else ())
    assert [body.get("priority") for body in server.asked[-3:]] == [
        7 if kind.get("schedules", True) else None,
        None,
        None,
    ]


def test_a_stop_id_is_the_last_token_and_greedy_needs_no_seed() -> None:
    with fake(shared_policy()) as server:

        async def verb(client: Client) -> Any:
            greedy = replace(PARAMS, greedy=True)
            free = await client.generate(PROMPT, greedy, timeout_s=SOON_S)
            stops = replace(greedy, stop_ids=frozenset({free.ids[2]}))
            return free, await client.generate(PROMPT, stops, timeout_s=SOON_S)

        free, stopped = ask(server, verb)
    assert free.finish in (Finish.EOS, Finish.LENGTH)
    first = free.ids.index(free.ids[2])
    assert (stopped.ids, stopped.finish) == (free.ids[: first + 1], Finish.EOS)
    untempered = logprobs(shared_policy().module, [*PROMPT, *free.ids])[len(PROMPT) - 1 :]
    assert torch.tensor(free.logprobs).sub(untempered).abs().max() < 1e-5


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(map(str, kind.values())))
def test_a_probe_gives_the_untempered_logprobs_of_every_token(kind: dict[str, Any]) -> None:
    ids = [3, 1, 4, 1, 5, 9, 2, 6]
    with fake(shared_policy(), **kind) as server:
        found = ask(server, lambda client: client.probe(ids, timeout_s=SOON_S))
    assert torch.tensor(found).sub(logprobs(shared_policy().module, ids)).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("nan", "logprobs that are not finite"),
        ("short", "logprobs of"),
        ("long", "where 1 to 12 were asked for"),
        ("foreign", "token ids that the model does not have"),
        ("garbage", "in {'choices': 'none'}"),
    ],
)
@pytest.mark.parametrize("scale_out", [True, False])
def test_an_answer_that_cannot_be_true_is_refused(fault: Fault, says: str, scale_out: bool) -> None:
    with fake(shared_policy(), scale_out=scale_out) as server:

        async def verb(client: Client) -> None:
            server.hit(fault)
            await client.generate(PROMPT, PARAMS, timeout_s=SOON_S)

        with pytest.raises(AnswerError, match=says):
            ask(server, verb)


@pytest.mark.parametrize(
    ("fault", "says", "status"),
    [
        ("500", "500: Internal server error", 500),
        ("memory", "500: CUDA out of memory", 500),
        ("dropped", "RemoteProtocolError|ReadError", 0),
        ("killed", "RemoteProtocolError|ReadError|ConnectError", 0),
        ("aborted", "aborted a request", 0),
    ],
)
def test_a_failure_is_told_in_the_server_s_own_words(fault: Fault, says: str, status: int) -> None:
    with fake(shared_policy()) as server:

        async def verb(client: Client) -> None:
            server.hit(fault)
            await client.generate(PROMPT, PARAMS, timeout_s=SOON_S)

        with pytest.raises(ServerError, match=says) as caught:
            ask(server, verb)
    assert (caught.value.status, caught.value.is_refusal) == (status, False)


@pytest.mark.parametrize("fault", ["hung", "stuck"])
def test_a_server_that_does_not_answer_is_cut_at_the_deadline(fault: Fault) -> None:
    with fake(shared_policy()) as server:

        async def verb(client: Client) -> None:
            server.hit(fault)
            await client.generate(PROMPT, PARAMS, timeout_s=0.2)

        began = time.monotonic()
        with pytest.raises(DeadlineError, match=r"POST /inference/v1/generate: no answer within 0"):
            ask(server, verb)
        assert time.monotonic() - began < 2


def test_a_refusal_is_known_as_one() -> None:
    with fake(shared_policy()) as server:

        async def verb(client: Client) -> None:
            await client.generate([1] * 250, PARAMS, timeout_s=SOON_S)

        with pytest.raises(ServerError, match="maximum context length") as caught:
            ask(server, verb)
    assert caught.value.is_refusal


def test_nobody_listens() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ServerError, match=f"{url}: GET /health: ConnectError"):
            asyncio.run(Client(url).check_health(timeout_s=SOON_S))


def test_the_key_is_sent_and_never_shown() -> None:
    with fake(shared_policy(), api_key="k-123") as server:
        ask(server, lambda client: client.probe([1, 2], timeout_s=SOON_S), "k-123")
        with pytest.raises(ServerError, match="401: Unauthorized") as caught:
            ask(server, lambda client: client.probe([1, 2], timeout_s=SOON_S), "wrong-key")
    assert "wrong-key" not in str(caught.value)
    assert "k-123" not in repr(Client("http://a", "k-123"))


@pytest.mark.parametrize("temperature", [0.001, 2.5])
def test_a_temperature_that_vllm_would_change_or_refuse_is_an_error(temperature: float) -> None:
    params = replace(PARAMS, temperature=temperature)
    with (
        fake(shared_policy()) as server,
        pytest.raises(EngineError, match=r"from 0\.01 to 2, and .* \(sampling\.temperature\)"),
    ):
        ask(server, lambda client: client.generate(PROMPT, params, timeout_s=SOON_S))


def test_a_server_with_raw_logprobs_is_not_taken() -> None:
    with (
        fake(shared_policy(), logprobs_mode="raw_logprobs") as server,
        pytest.raises(EngineError, match="--logprobs-mode processed_logprobs"),
    ):
        ask(server, lambda client: client.probe([1, 2], timeout_s=SOON_S))


def test_a_version_that_nobody_tried_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with fake(shared_policy()) as server:
        ask(server, lambda client: client.probe([1, 2], timeout_s=SOON_S))
        assert caplog.text == ""
        server.speaks = "0.40.1"  # type: ignore[assignment]
        ask(server, lambda client: client.probe([1, 2], timeout_s=SOON_S))
    assert "is of version 0.40.1, and agentrl was written for 0.31, 0.32, 0.33" in caplog.text


def test_tokens_are_counted_while_they_come() -> None:
    with fake(shared_policy()) as server:

        async def verb(client: Client) -> list[float | None]:
            before = await client.progress(timeout_s=SOON_S)
            one = await client.generate(PROMPT, PARAMS, timeout_s=SOON_S)
            after = await client.progress(timeout_s=SOON_S)
            assert before is not None
            assert after == before + len(one.ids)
            return [before, after]

        ask(server, verb)


def test_every_token_says_which_weights_made_it() -> None:
    with fake(shared_policy(), token_s=0.02) as server:

        async def verb(client: Client) -> Any:
            endless = replace(PARAMS, stop_ids=frozenset())
            asked = asyncio.create_task(client.generate(PROMPT, endless, timeout_s=SOON_S))
            await asyncio.sleep(0.1)
            await client.post("/pause?mode=keep", timeout_s=SOON_S)
            await client.name_weights(4, timeout_s=SOON_S)
            await client.post("/resume", timeout_s=SOON_S)
            return await asked

        answer = ask(server, verb)
    assert [version for version, _ in answer.versions] == [3, 4]
    assert sum(count for _, count in answer.versions) == len(answer.ids) == 12
