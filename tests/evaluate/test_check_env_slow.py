"""An env whose turns take long is checked on fewer of them, and the report says so."""

import time
from collections.abc import Sequence
from dataclasses import replace
from random import Random

import pytest

from agentrl.core.types import Observation, Split, Task
from agentrl.evaluate import check_player
from agentrl.evaluate.check_env import CHECKS, Status, check_env
from agentrl.evaluate.check_player import FEWEST, TURNS
from support import WORDS, EchoEnv

TURN_S = 0.01


class Long(EchoEnv):
    """Few tasks of many words."""

    def tasks(self, split: Split) -> Sequence[Task]:
        firsts = {"train": 0, "dev": 10, "test": 20}
        return [
            Task(id=f"long/{n}", seed=n, data={"words": Random(n).choices(WORDS, k=self.length)})
            for n in range(firsts[split], firsts[split] + 4)
        ]


class Deliberates(Long):
    """Takes long to say what is legal."""

    def legal_actions(self) -> list[str]:
        time.sleep(TURN_S)
        return super().legal_actions()


class OneEpisodeForAll(Long):
    """Takes now short and now long, and every task is the first one."""

    def reset(self, task: Task) -> Observation | str:
        return super().reset(replace(task, data=self.tasks("train")[0].data))

    def legal_actions(self) -> list[str]:
        time.sleep(TURN_S * Random(time.monotonic_ns()).random())
        return super().legal_actions()


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_player, "TURNS_S", 4 * TURN_S)
    monkeypatch.setattr(check_player, "WANDER_S", 10 * TURN_S)


@pytest.mark.usefixtures("hurried")
def test_slow_turns_are_fewer_and_counted_aloud() -> None:
    report = check_env(Deliberates(length=40, cap=60), tasks=1, may_spawn=False)
    assert {one.name: one.reason for one in report.of(Status.FAIL)} == {}
    assert len(report.of(Status.PASS)) >= len(CHECKS) - 6
    assert FEWEST <= report.shortest <= 5
    told = f"episodes compared for {report.shortest} turns at least, not {TURNS}: they take long"
    assert told in report.lines()[-1]
    assert report.to_json()["compared_turns"] == report.shortest


def test_quick_turns_are_all_compared_and_nothing_is_said_of_it() -> None:
    report = check_env(Long(length=40, cap=60), tasks=1, may_spawn=False)
    assert report.shortest == TURNS
    assert report.lines()[-1].endswith(" s")


@pytest.mark.usefixtures("hurried")
def test_one_episode_for_all_tasks_is_found_wherever_it_was_left_off() -> None:
    report = check_env(OneEpisodeForAll(length=40, cap=60), tasks=2, may_spawn=False)
    assert "another task is another episode" in [one.name for one in report.of(Status.FAIL)]
