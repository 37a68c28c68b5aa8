"""The engine `vllm` against servers that speak vLLM's fields: samples, pushes, probes."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from agentrl.core.config import Config, Lora
from agentrl.core.errors import ConfigError, EngineError
from agentrl.core.loading import load, to_yaml
from agentrl.core.types import Completion, Image, SamplingParams
from agentrl.engines.policy import LoadedPolicy, load_policy
from agentrl.engines.vllm.engine import Vllm, _shape, interpreter
from agentrl.train.lora import add_lora
from agentrl.train.sync import push
from support.models import logprobs, shared_policy, tiny_policy, trained_policy
from support.wire import engine_of, play, servers

PROMPT = [5, 9, 2, 30]
PARAMS = SamplingParams(temperature=0.8, max_tokens=6, seed=11)
IDS = (3, 1, 4, 1, 5, 9, 2, 6)


async def sample(engine: Vllm, episode: int = 0, group: int = 0) -> Completion:
    return await engine.generate(PROMPT, PARAMS, episode=episode, group=group)


def tensors(policy: LoadedPolicy, scale: float) -> Mapping[str, torch.Tensor]:
    return {name: scale * tensor for name, tensor in policy.module.state_dict().items()}


def test_the_weights_of_the_policy_are_pushed_to_servers_that_had_others() -> None:
    policy = shared_policy()
    with servers(tiny_policy(seed=5)) as [server]:
        answer = play(engine_of([server]), policy, sample)
        assert server.weights == "0"
    exact = logprobs(policy.module, [*PROMPT, *answer.ids], 0.8)[len(PROMPT) - 1 :]
    assert torch.tensor(answer.logprobs).sub(exact).abs().max() < 1e-5
    assert answer.versions == ((0, len(answer.ids)),)


@pytest.mark.parametrize("scale_out", [True, False])
def test_a_push_reaches_every_server_and_passes_the_parity_probe(scale_out: bool) -> None:
    policy = trained_policy(steps=2)
    with servers(policy, 2, scale_out=scale_out) as running:

        async def verb(engine: Vllm) -> tuple[float, list[Completion]]:
            before = running[1].module.lm_head.weight.clone()
            with torch.no_grad():
                for weight in policy.module.parameters():
                    weight.add_(0.01)
            given = policy.module.state_dict()
            gap = await push(engine, policy.module, 1, IDS, tensors=given)
            assert not torch.equal(before, running[1].module.lm_head.weight)
            return gap, [await sample(engine, n, n) for n in range(2)]

        gap, answers = play(engine_of(running), policy, verb)
        assert [server.weights for server in running] == ["1", "1"]
    assert gap < 1e-4
    assert [answer.versions for answer in answers] == [((1, len(a.ids)),) for a in answers]


def test_servers_in_a_shorter_type_than_the_trainer_are_compared_by_their_mean() -> None:
    policy = trained_policy(steps=2)

    async def verb(engine: Vllm) -> float:
        return await push(engine, policy.module, 1, IDS, tensors=policy.module.state_dict())

    with servers(policy) as [server]:
        server.module.bfloat16()
        assert 1e-4 < play(engine_of([server], dtype="bfloat16"), policy, verb) < 5e-2
        with pytest.raises(EngineError, match="does not compute what the policy computes"):
            play(engine_of([server]), policy, verb)


def test_a_push_that_was_said_to_arrive_and_did_not_fails_the_parity_probe() -> None:
    policy = trained_policy(steps=2)
    with servers(policy) as [server]:

        async def verb(engine: Vllm) -> None:
            with torch.no_grad():
                for weight in policy.module.parameters():
                    weight.add_(0.01)
            server.hit("push lost")
            given = policy.module.state_dict()
            await push(engine, policy.module, 1, IDS, tensors=given)

        with pytest.raises(RuntimeError, match="weight push 1 failed its parity probe"):
            play(engine_of([server]), policy, verb)


def test_servers_with_different_weights_fail_the_probe_of_all() -> None:
    policy = trained_policy(steps=2)
    with servers(policy, 3) as running:

        async def verb(engine: Vllm) -> None:
            running[2].hit("push lost")
            await engine.load_weights(tensors(policy, 1.1), 1)
            await engine.probe(IDS)

        with pytest.raises(EngineError, match=f"and {running[2].url} have other weights"):
            play(engine_of(running), policy, verb)


def test_a_server_that_computes_another_function_is_not_sampled_from() -> None:
    policy = shared_policy()
    with servers(policy) as [server]:
        server.hit("push lost")
        with torch.no_grad():
            next(server.module.parameters()).mul_(1.1)
        with pytest.raises(EngineError, match="does not compute what the policy computes"):
            play(engine_of([server]), policy, sample)
    assert [body for body in server.asked if body["token_ids"] == PROMPT] == []


@pytest.mark.parametrize("keep_kv", [False, True])
def test_a_push_drops_keys_and_values_unless_they_are_kept(keep_kv: bool) -> None:
    policy = shared_policy()
    with servers(policy) as [server]:

        async def verb(engine: Vllm) -> None:
            server.paths.clear()
            await engine.load_weights(tensors(policy, 1.0), 1)

        play(engine_of([server], keep_kv=keep_kv), policy, verb)
    assert ("/reset_prefix_cache" in server.paths) is not keep_kv


def test_a_later_start_pushes_the_new_policy_to_the_servers_that_run() -> None:
    first, second = shared_policy(), trained_policy(seed=3, steps=2)
    with servers(first) as [server]:

        async def verb(engine: Vllm) -> Completion:
            await engine.load_weights(tensors(first, 0.9), 7)
            await engine.start(second)
            return await sample(engine)

        answer = play(engine_of([server]), first, verb)
        assert server.pushes == 3
    exact = logprobs(second.module, [*PROMPT, *answer.ids], 0.8)[len(PROMPT) - 1 :]
    assert torch.tensor(answer.logprobs).sub(exact).abs().max() < 1e-5


def test_a_model_that_was_saved_and_read_back_needs_no_other_servers(tmp_path: Path) -> None:
    built = tiny_policy(seed=9)
    before = _shape(built)
    built.save(tmp_path)
    assert _shape(load_policy(str(tmp_path), seed=0, device="cpu")) == before
    assert _shape(tiny_policy(hidden_size=16)) != before


def test_episodes_stay_with_their_server_and_siblings_go_to_that_of_their_group() -> None:
    policy = shared_policy()
    with servers(policy, 2, token_s=0.002) as running:

        async def verb(engine: Vllm) -> None:
            for _turn in range(3):
                await asyncio.gather(
                    *(sample(engine, 10 * group + i, group) for group in range(2) for i in range(3))
                )
            for server in running:
                asked = [body for body in server.asked if body["token_ids"] == PROMPT]
                groups = {int(body["request_id"].split("-")[1]) // 10 for body in asked}
                assert (len(asked), len(groups)) == (9, 1)

        play(engine_of(running), policy, verb)


def test_siblings_go_elsewhere_when_their_server_is_full() -> None:
    policy = shared_policy()
    with servers(policy, 2, token_s=0.002) as running:

        async def verb(engine: Vllm) -> None:
            await asyncio.gather(*(sample(engine, i, 0) for i in range(6)))

        play(engine_of(running, max_seqs=3), policy, verb)
        counts = [sum(b["token_ids"] == PROMPT for b in server.asked) for server in running]
    assert sorted(counts) == [3, 3]


def test_early_episodes_go_first() -> None:
    policy = shared_policy()
    with servers(policy) as [server]:
        play(engine_of([server]), policy, lambda engine: sample(engine, 17))
        assert server.asked[-1]["priority"] == 17


@pytest.mark.parametrize("way", ["auto", "lora", "merged"])
def test_a_lora_policy_reaches_a_server_by_its_adapter_or_merged(way: str) -> None:
    policy = tiny_policy()
    policy.module = add_lora(policy.module, Lora(rank=2), 0)
    started = tiny_policy(seed=9 if way == "merged" else 0)
    with servers(started) as [server]:

        async def verb(engine: Vllm) -> float:
            with torch.no_grad():
                for name, weight in policy.module.named_parameters():
                    if "lora_" in name:
                        weight.normal_(std=0.2)
            given = policy.module.state_dict()
            return await push(engine, policy.module, 1, IDS, tensors=given)

        assert play(engine_of([server], push=way), policy, verb) < 1e-4
        assert server.asked[-1].get("model") == (None if way == "merged" else "adapter")


def test_images_are_sent_as_pixels_and_must_take_the_tokens_that_the_prompt_has_for_them() -> None:
    policy = tiny_policy()
    policy.module.config.image_token_id = 7  # type: ignore[union-attr]
    image = Image(b"\x89PNG\r\n\x1a\n")
    prompt = [5, 7, 7, 7, 9, 7, 7, 7, 2]
    with servers(policy, image=(7, 3)) as [server]:

        async def verb(engine: Vllm) -> Completion:
            none = await engine.generate([5, 9], PARAMS, episode=0, group=0, images=[image])
            assert none.ids
            assert "content_parts" not in server.asked[-1]
            two = [image, image]
            return await engine.generate(prompt, PARAMS, episode=0, group=0, images=two)

        answer = play(engine_of([server]), policy, verb)
        assert server.asked[-1]["token_ids"] == [5, 7, 9, 7, 2]
        assert [part["uuid"] for part in server.asked[-1]["content_parts"]] == [image.hash] * 2
        exact = logprobs(policy.module, [*prompt, *answer.ids], 0.8)[len(prompt) - 1 :]
        assert torch.tensor(answer.logprobs).sub(exact).abs().max() < 1e-5

        async def other(engine: Vllm) -> None:
            await engine.generate([5, 7, 7, 2], PARAMS, episode=0, group=0, images=[image])

        with pytest.raises(EngineError, match="images that take other tokens than the prompt"):
            play(engine_of([server]), policy, other)

        async def fewer(engine: Vllm) -> None:
            await engine.generate(prompt, PARAMS, episode=0, group=0, images=[image])

        with pytest.raises(EngineError, match="a prompt with 2 images in it came with 1"):
            play(engine_of([server]), policy, fewer)


def test_servers_sleep_while_nothing_is_sampled_and_wake_for_a_push() -> None:
    policy = shared_policy()
    with servers(policy) as [server]:

        async def verb(engine: Vllm) -> list[bool]:
            seen = []
            for episode in range(2):
                await sample(engine, episode)
                seen.append(server.is_asleep)
            for episode in range(2):
                await engine.end(episode)
                seen.append(server.is_asleep)
            await engine.load_weights(tensors(policy, 1.0), 1)
            return [*seen, server.is_asleep]

        states = play(engine_of([server], sleep=True), policy, verb)
    assert states == [False, False, False, True, False]


def test_the_key_of_the_environment_is_used_and_no_key_is_written_down(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    policy = shared_policy()
    monkeypatch.setenv("MY_KEY", "k-1")
    with servers(policy, api_key="k-1") as [server]:
        play(engine_of([server], api_key_from="MY_KEY"), policy, sample)
        play(engine_of([server], api_key="k-1"), policy, sample)
        with pytest.raises(EngineError, match="401"):
            play(engine_of([server]), policy, sample)
    config = load(Config, {"engine": {"name": "vllm", "urls": ["http://a:1"], "api_key": "k-1"}})
    assert "k-1" not in to_yaml(config) + repr(config)


def test_each_process_of_a_run_has_servers_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = shared_policy()
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with servers(policy, 2) as running:
        play(engine_of(running), policy, sample)
        assert [bool(server.asked) for server in running] == [False, True]
        with pytest.raises(ConfigError, match="2 processes train, and each needs a server"):
            play(engine_of(running[:1]), policy, sample)


def test_nonsense_is_refused_before_anything_starts() -> None:
    with pytest.raises(ConfigError, match="urls: expected http://HOST:PORT"):
        Vllm(urls=("localhost:8000",))
    with pytest.raises(ConfigError, match="gpus: given servers"):
        Vllm(urls=("http://a:1",), gpus=(0,))
    with pytest.raises(EngineError, match="before start"):
        asyncio.run(sample(Vllm()))


def test_the_interpreter_is_the_named_one_or_that_of_the_variable_or_of_the_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("AGENTRL_VLLM_PYTHON", raising=False)
    monkeypatch.chdir(tmp_path)
    running = interpreter(None)
    (tmp_path / ".venv-vllm/bin").mkdir(parents=True)
    (tmp_path / ".venv-vllm/bin/python").touch()
    found = interpreter(None)
    monkeypatch.setenv("AGENTRL_VLLM_PYTHON", "/b/python")
    assert (running.name[:6], found) == ("python", tmp_path / ".venv-vllm/bin/python")
    assert interpreter(None) == Path("/b/python")
    assert interpreter(Path("/c/python")) == Path("/c/python")


def test_without_vllm_the_error_names_the_extra_and_the_environment_of_its_own() -> None:
    with pytest.raises(EngineError, match=r"agentrl\[vllm\].*interpreter of the environment"):
        play(Vllm(python=Path(sys.executable)), shared_policy(), sample)
