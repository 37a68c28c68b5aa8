"""Actions that sound like the task come first, and some chance is left to all others."""

from pathlib import Path
from random import Random

import pytest

from agentrl.core.config import load_config
from agentrl.core.types import Task
from agentrl.explore.go_explore import GoExplore
from agentrl.explore.shortlist import Shortlist
from support.locks import TASKS, Lock, found

TASK = Task(id="t", seed=0, instruction="put the red apple into the fridge")
ACTIONS = ["look", "open fridge", "take red apple", "eat soap", "put red apple into fridge", "wait"]


def test_what_sounds_like_the_task_is_left_in_its_order() -> None:
    cut = Shortlist(most=3, full=0.0).cut(TASK, ACTIONS, Random(0))
    assert cut == ["open fridge", "take red apple", "put red apple into fridge"]


@pytest.mark.parametrize(
    "how", [Shortlist(most=6), Shortlist(most=99), Shortlist(most=1, full=1.0)]
)
def test_a_long_list_or_a_full_chance_leaves_all(how: Shortlist) -> None:
    assert how.cut(TASK, ACTIONS, Random(0)) == ACTIONS


def test_all_actions_come_as_often_as_asked_for_and_something_always_does() -> None:
    how, rng = Shortlist(most=1, full=0.3), Random(1)
    cuts = [how.cut(TASK, ACTIONS, rng) for _ in range(2_000)]
    assert sum(cut == ACTIONS for cut in cuts) / 2_000 == pytest.approx(0.3, abs=0.03)
    assert all(cuts)
    silent = Task(id="t", seed=0)
    assert Shortlist(most=1, full=0.0).cut(silent, ACTIONS, Random(0)) == ACTIONS


def test_an_explorer_takes_a_shortlist_from_a_config(tmp_path: Path) -> None:
    config = load_config(
        None, ["env=game24", "sft.demos=4", "explore=go_explore", "explore.shortlist.most=5"]
    )
    assert isinstance(config.explore, GoExplore)
    assert config.explore.shortlist == Shortlist(most=5)
    how = GoExplore(budget=2_000, steps=3, shortlist=Shortlist(most=1))
    assert all(result.ways for result in found(how, Lock(), tmp_path, TASKS))
