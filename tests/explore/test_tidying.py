"""Tidy ways: what a success can do without is left out, and what may be swapped is in one order."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

from agentrl.core.protocols import Env, RunsIn
from agentrl.core.types import Action, Split, Step, Task
from agentrl.explore.go_explore import GoExplore
from agentrl.explore.tidying import tidied
from support.locks import Lock, found

FORMS = [Task(id=f"form/{n}", seed=n) for n in range(4)]


@dataclass(kw_only=True)
class Form(Env):
    """Two boxes to tick in either order, two buttons that do nothing, and one that submits."""

    runs_in: ClassVar[RunsIn] = "inline"

    def __post_init__(self) -> None:
        self._done: frozenset[str] = frozenset()

    def tasks(self, split: Split) -> Sequence[Task]:
        return FORMS

    def reset(self, task: Task) -> str:
        self._done = frozenset()
        return "a form"

    def step(self, action: Action) -> Step:
        self._done |= {str(action)}
        is_over, success = "submit" in self._done, {"age", "name"} <= self._done
        info = {"success": success} if is_over else {}
        return Step(observation=" ".join(sorted(self._done)), terminated=is_over, info=info)

    def legal_actions(self) -> list[str]:
        return ["help", "name", "look", "age", "submit"]

    def state_key(self) -> str:
        return " ".join(sorted(self._done))


def tried(way: str, succeeds: Sequence[str]) -> tuple[str, list[str]]:
    """The tidied way, and what was played for it; an action is a letter."""
    asked: list[str] = []

    async def plays(actions: tuple[Action, ...]) -> bool:
        asked.append("".join(map(str, actions)))
        return asked[-1] in succeeds

    return "".join(map(str, asyncio.run(tidied(way, plays)))), asked


def test_each_action_is_left_out_once_from_the_end() -> None:
    way, asked = tried("xaybz", ["xayb", "xab", "ab"])
    assert way == "ab"
    assert asked == ["xayb", "xay", "xab", "xb", "ab"]


def test_neighbours_are_swapped_into_the_order_of_their_texts_where_that_succeeds() -> None:
    assert tried("cba", ["bca", "bac", "abc"])[0] == "abc"
    assert tried("cba", ["cab"])[0] == "cab", "the others need their order"
    assert tried("abc", ["acb"])[0] == "abc", "they are in order"


def test_nothing_is_played_twice_and_the_way_itself_not_at_all() -> None:
    _, asked = tried("baab", ["aab", "aba"])
    assert len(asked) == len(set(asked))
    assert "baab" not in asked


def test_explored_tasks_agree_once_their_ways_are_tidy(tmp_path: Path) -> None:
    untidy = found(GoExplore(budget=300), Form(), tmp_path / "untidy", FORMS)
    assert len({one.ways[0] for one in untidy}) > 1
    tidy = found(GoExplore(budget=300, tidy=True), Form(), tmp_path / "tidy", FORMS)
    assert [one.ways[0] for one in tidy] == [("age", "name", "submit")] * 4
    assert all(t.first == u.first for t, u in zip(tidy, untidy, strict=True))
    assert all(t.steps > u.steps for t, u in zip(tidy, untidy, strict=True)), "tries cost steps"


def test_a_plan_goes_the_tidy_way(tmp_path: Path) -> None:
    for one in found(GoExplore(budget=300, tidy=True, lessons=2), Form(), tmp_path, FORMS):
        assert (one.plan[""], one.plan["age"], one.plan["age name"]) == ("age", "name", "submit")


def test_a_start_that_is_another_one_by_then_is_counted_and_the_way_is_kept(tmp_path: Path) -> None:
    class Moved(Form):
        is_won = False

        def step(self, action: Action) -> Step:
            step = super().step(action)
            self.is_won = self.is_won or bool(step.info.get("success"))
            return step

        def state_key(self) -> str:
            return f"{super().state_key()} {self.is_won}"

    [one] = found(GoExplore(budget=300, tidy=True), Moved(), tmp_path, FORMS[:1])
    assert one.failure is None
    assert one.diverged > 0
    assert one.ways[0][-1] == "submit"


@pytest.mark.parametrize("budget", [40, 60, 80])
def test_tries_keep_the_budget_of_the_task(tmp_path: Path, budget: int) -> None:
    for one in found(GoExplore(budget=budget, tidy=True), Lock(length=4), tmp_path):
        assert one.steps <= budget + 4
