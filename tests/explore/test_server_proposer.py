"""A proposer behind OpenAI's chat API: what it is sent, asked again, kept, and may cost."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from agentrl.core.errors import BudgetError, ConfigError, ProposerError
from agentrl.core.exploring import Question
from agentrl.core.types import Message
from agentrl.explore.proposers import server as module
from agentrl.explore.proposers.server import Server
from agentrl.explore.proposers.table import Table
from support.fake_http import Broken
from support.proposers import FakeChat, asked

OPTIONS = ("left", "right")


def talk(
    fake: FakeChat, folder: Path, work: Callable[[Server], Awaitable[object]], **settings: object
) -> Server:
    """One session with a server."""

    async def run() -> Server:
        proposer = Server(url=f"{fake.url}/v1", model="m", **settings)  # type: ignore[arg-type]
        await proposer.start(folder, None)
        try:
            await work(proposer)
        finally:
            await proposer.close()
            await proposer.close()
        return proposer

    return asyncio.run(run())


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSE_S", 0.001)


def test_a_question_is_sent_as_messages_with_the_key_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", "sesame")
    question = asked("action", "a", OPTIONS, text="where to?")
    question = Question(
        kind="action",
        task=question.task,
        key="a",
        text="where to?",
        system="be brief",
        options=OPTIONS,
        history=(Message(role="user", text="and?"), Message(role="assistant", text="left")),
    )
    with FakeChat(api_key="sesame", guarded=("/v1",)) as fake:
        talk(fake, tmp_path, lambda p: p.answer(question, 5), key_env="MY_KEY")
        with pytest.raises(ProposerError, match="401"):
            talk(fake, tmp_path / "b", lambda p: p.answer(question, 5), key_env="NO_KEY")
    [body] = fake.bodies
    assert [(m["role"], m["content"]) for m in body["messages"]] == [
        ("system", "be brief"),
        ("user", "and?"),
        ("assistant", "left"),
        ("user", "where to?"),
    ]
    assert (body["model"], body["temperature"], body["seed"]) == ("m", 0.7, 5)
    assert "sesame" not in (tmp_path / "answers.jsonl").read_text()


def test_what_was_said_is_kept_and_not_asked_again(tmp_path: Path) -> None:
    async def work(proposer: Server) -> None:
        for key in "aab":
            assert await proposer.answer(asked("action", key, OPTIONS, text=key), 0) == "2"

    with FakeChat(script=["2"]) as fake:
        first = talk(fake, tmp_path, work)
        assert (first.spent_calls, first.known, first.spent_tokens) == (2, 1, 14)
        again = talk(fake, tmp_path, work, calls=0)
        assert (again.spent_calls, again.known) == (0, 3)
        with pytest.raises(BudgetError, match="all 0 calls are spent"):
            talk(fake, tmp_path, work, calls=0, temperature=0.1, cache=tmp_path / "other.jsonl")
    assert len(fake.bodies) == 2
    offline = Table(path=tmp_path / "answers.jsonl", by="m")
    assert asyncio.run(offline.answer(asked("action", "b", OPTIONS, text="b"), 0)) == "2"
    with pytest.raises(ProposerError, match="has no answer"):
        asyncio.run(offline.answer(asked("action", "b", OPTIONS, text="other words"), 0))


def test_free_answers_are_found_offline_by_their_task(tmp_path: Path) -> None:
    with FakeChat(script=["- get key"]) as fake:
        talk(fake, tmp_path, lambda p: p.answer(asked("subgoals", "s", (), text="goals?"), 0))
    offline = Table(path=tmp_path / "answers.jsonl")
    assert (
        asyncio.run(offline.answer(asked("subgoals", "s", (), text="anything"), 0)) == "- get key"
    )
    head = json.loads((tmp_path / "answers.jsonl").read_text().splitlines()[0])
    assert (head["format"], head["by"]) == (1, "m")


@pytest.mark.parametrize(
    "bad",
    [
        500,
        429,
        Broken({"choices": []}),
        {"choices": []},
        {"choices": [{"message": {"content": None}}]},
        {"answer": "no chat"},
        [1, 2],
    ],
)
def test_a_server_that_fails_is_asked_again(tmp_path: Path, bad: object) -> None:
    with FakeChat(script=[bad, "1"]) as fake:
        answers: list[str] = []

        async def work(proposer: Server) -> None:
            answers.append(await proposer.answer(asked("action", "a", OPTIONS), 0))

        proposer = talk(fake, tmp_path, work)
    assert answers == ["1"]
    assert proposer.spent_calls == 2


def test_it_is_asked_three_times_at_most_and_a_refusal_once(tmp_path: Path) -> None:
    question = asked("action", "a", OPTIONS)
    with FakeChat(script=[503]) as fake:
        with pytest.raises(ProposerError, match=r"503: .*as the script says.*, 3 times"):
            talk(fake, tmp_path, lambda p: p.answer(question, 0))
        assert len(fake.bodies) == 3
    with FakeChat(script=[400]) as fake:
        with pytest.raises(ProposerError, match="400"):
            talk(fake, tmp_path, lambda p: p.answer(question, 0))
        assert len(fake.bodies) == 1
    assert not (tmp_path / "answers.jsonl").exists()


def test_tokens_may_be_spent_and_time_may_be_up(tmp_path: Path) -> None:
    async def work(proposer: Server) -> None:
        for key in "abc":
            await proposer.answer(asked("action", key, OPTIONS, text=key), 0)

    with FakeChat() as fake:
        with pytest.raises(BudgetError, match="14 of 8 tokens"):
            talk(fake, tmp_path, work, tokens=8)

        async def slow() -> None:
            await asyncio.sleep(5)

        fake.before = slow  # type: ignore[method-assign]
        with pytest.raises(ProposerError, match=r"no answer within 0.2 s"):
            talk(fake, tmp_path / "b", work, deadline_s=0.2)
        with pytest.raises(ProposerError, match=r"ReadTimeout.*2 times"):
            talk(fake, tmp_path / "c", work, timeout_s=0.05, tries=2)


def test_an_address_that_is_none_and_a_closed_port_are_told(tmp_path: Path) -> None:
    question = asked("action", "a", OPTIONS)
    with pytest.raises(ConfigError, match="expected http://"):
        asyncio.run(Server(url="localhost:8000", model="m").answer(question, 0))
    with pytest.raises(ProposerError, match=r"ConnectError.*3 times"):
        asyncio.run(Server(url="http://127.0.0.1:9", model="m").answer(question, 0))
