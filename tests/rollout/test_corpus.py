"""What a tokenizer is trained on: observations and written actions of train tasks."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from agentrl.core.errors import EnvError
from agentrl.core.protocols import Env, Runner
from agentrl.core.types import Task
from agentrl.rollout.corpus import corpus
from agentrl.rollout.runners import InlineRunner, ThreadRunner
from agentrl.text.actions.tagged import TaggedAction
from support import BadEnv, EchoEnv, PlainEnv
from support.faulty import OnceBadEnv
from support.play import words_of

TASKS = EchoEnv().tasks("train")[:6]


def texts(env: Env, *, runner: Runner | None = None, tasks: Sequence[Task] = TASKS) -> list[str]:
    actions = TaggedAction()
    return asyncio.run(corpus(env, runner or InlineRunner(), actions, tasks, max_turns=8, seed=0))


def test_it_holds_what_tasks_show_and_actions_as_the_format_writes_them() -> None:
    found = texts(EchoEnv())
    assert TaggedAction().system in found
    assert TaggedAction().hint() in found
    for task in TASKS:
        assert f"say {words_of(task)[0]}" in found
    assert [text for text in found if text.startswith("<action>")]


def test_the_same_seed_gives_the_same_texts() -> None:
    assert texts(EchoEnv()) == texts(EchoEnv(), runner=ThreadRunner())


def test_an_env_without_expert_and_actions_shows_its_first_observations() -> None:
    env = PlainEnv("ant")
    assert "train: what is the word?" in texts(env, tasks=list(env.tasks("train")))


@pytest.mark.parametrize("at", ["reset", "step"])
def test_an_episode_that_fails_is_left_out_and_the_rest_goes_on(at: str, tmp_path: Path) -> None:
    env = OnceBadEnv(fault="raise", at=at, claim=str(tmp_path / "claim"))
    found = texts(env)
    assert (tmp_path / "claim").exists()
    for task in TASKS[1:]:
        assert f"say {words_of(task)[0]}" in found


def test_an_env_that_fails_every_task_says_so() -> None:
    with pytest.raises(
        EnvError,
        match="each of 6 train tasks failed; the first: env BadEnv: reset raised ValueError",
    ):
        texts(BadEnv(fault="raise", at="reset"))
