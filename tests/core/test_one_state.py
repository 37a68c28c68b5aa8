"""Envs whose whole state is one value: how they end, are saved and go on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import pytest

from agentrl.core.one_state import OneState
from agentrl.core.types import Action, Split, Step, Task


class Count(NamedTuple):
    left: int
    is_over: bool


@dataclass(kw_only=True)
class Countdown(OneState[Count]):
    """Three steps, then success."""

    def __post_init__(self) -> None:
        self._now = Count(0, True)

    def tasks(self, split: Split) -> Sequence[Task]:
        return [Task(id="t", seed=3)]

    def reset(self, task: Task) -> str:
        self._now = Count(task.seed, False)
        return str(task.seed)

    def step(self, action: Action) -> Step:
        left = self._playing().left - 1
        self._now = Count(left, left == 0)
        refusal = "" if action == "on" else "no"
        return self._stepped(
            str(left),
            refusal=refusal,
            reward=0.5,
            success=True,
            terminated=left == 0,
            metrics={"left": float(left)},
        )


def begun() -> Countdown:
    env = Countdown()
    env.reset(env.tasks("test")[0])
    return env


def test_success_is_told_at_the_end_and_a_refusal_before_what_is_shown() -> None:
    env = begun()
    first, second, last = env.step("on"), env.step("off"), env.step("on")
    assert (first.observation, first.info) == ("2", {"metrics": {"left": 2.0}})
    assert second.observation == "no\n1"
    assert second.info == {"metrics": {"left": 1.0}, "invalid_action": True}
    assert (last.terminated, last.info["success"]) == (True, True)


@pytest.mark.parametrize("how", ["never begun", "ended", "closed"])
def test_no_step_is_taken_where_no_episode_goes_on(how: str) -> None:
    env = Countdown() if how == "never begun" else begun()
    if how == "ended":
        for _ in range(3):
            env.step("on")
    env.close()
    env.close()
    with pytest.raises(RuntimeError, match=r"Countdown: the episode is over .*: call reset"):
        env.step("on")


def test_a_snapshot_goes_on_from_where_it_was_taken_also_in_another_env() -> None:
    env = begun()
    env.step("on")
    saved = env.snapshot()
    env.step("on")
    other = Countdown()
    other.restore(saved)
    assert other.step("on") == begun_after(1).step("on")
    env.restore(saved)
    assert env.step("on").observation == "1"


def begun_after(steps: int) -> Countdown:
    env = begun()
    for _ in range(steps):
        env.step("on")
    return env
