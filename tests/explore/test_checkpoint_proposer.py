"""A small model in a folder leads a search, sampled by our own engine."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from agentrl.core.errors import ConfigError, ProposerError
from agentrl.core.exploring import Question
from agentrl.core.types import Task
from agentrl.envs.game24 import Game24
from agentrl.explore.ige import IntelligentGoExplore
from agentrl.explore.proposers.checkpoint import Checkpoint
from agentrl.explore.proposers.policy import OwnPolicy
from agentrl.rollout.runners import runner_for
from support.models import shared_policy
from support.proposers import asked


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained tiny model on disk."""
    path = tmp_path_factory.mktemp("model")
    shared_policy().save(path)
    return path


def answers(proposer: Checkpoint, *questions: Question, seed: int = 1) -> list[str]:
    """What a model answers in one session."""

    async def run() -> list[str]:
        await proposer.start(Path(), None)
        try:
            return [await proposer.answer(question, seed) for question in questions]
        finally:
            await proposer.close()
            await proposer.close()

    return asyncio.run(run())


def test_the_same_seed_gives_the_same_answer_and_others_differ(folder: Path) -> None:
    question = asked("cell", "k", ("a", "b"), text="hi")
    model = Checkpoint(path=str(folder), temperature=1.0, max_tokens=8, device="cpu")
    first, again = (answers(model, question, seed=seed) for seed in (1, 1))
    assert first == again
    assert len({answers(model, question, seed=seed)[0] for seed in range(2, 8)}) > 1


def test_a_model_that_acts_answers_for_actions_alone(folder: Path) -> None:
    model = Checkpoint(path=str(folder), style="act", max_tokens=8, device="cpu")
    action = replace(asked("action", "k", ("a", "b")), shown="hi")
    assert isinstance(answers(model, action)[0], str)
    with pytest.raises(ProposerError, match="a model that only acts has no answer to 'keep'"):
        answers(model, asked("keep", "k", ("a", "b")))


def test_a_question_that_is_too_long_has_no_answer(folder: Path) -> None:
    model = Checkpoint(path=str(folder), device="cpu")
    with pytest.raises(ProposerError, match=r"a prompt of \d+ tokens for a model of"):
        answers(model, asked("cell", "k", ("a", "b"), text="long " * 2_000))


def test_it_leads_a_search_and_all_its_answers_are_counted(folder: Path, tmp_path: Path) -> None:
    how = IntelligentGoExplore(
        proposer=Checkpoint(path=str(folder), style="act", max_tokens=8, device="cpu"),
        budget=30,
        steps=3,
        chooses_state=False,
        keeps=False,
        history=0,
    )
    env, task = Game24(), Task(id="p", seed=0, data={"numbers": [4, 4, 6, 8]})
    [found] = asyncio.run(
        how.find([task], env, runner_for(env), tmp_path, seed=1, say=lambda text: None)
    )
    counts = found.metrics
    assert found.failure is None
    assert counts["proposer/asked"] > 0
    assert counts.get("proposer/unread", 0) == counts.get("proposer/random", 0)


def test_nobody_is_asked_before_they_are_there(tmp_path: Path) -> None:
    question = asked("cell", "k", ("a", "b"))
    with pytest.raises(ConfigError, match="was asked before it was started"):
        asyncio.run(Checkpoint(path=str(tmp_path)).answer(question, 0))
    with pytest.raises(ConfigError, match="only be asked inside of a training run"):
        asyncio.run(OwnPolicy().start(tmp_path, None))
    with pytest.raises(ConfigError):
        asyncio.run(Checkpoint(path=str(tmp_path / "none")).start(tmp_path, None))
