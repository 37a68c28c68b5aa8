"""Plans and lessons: what is best in each state that was seen, and where it is shown."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from agentrl.core.graph import Cell, StateGraph
from agentrl.core.types import Json, Start
from agentrl.envs.babyai import BabyAI
from agentrl.envs.gym import Gymnasium
from agentrl.explore.go_explore import GoExplore
from agentrl.explore.nearest import Nearest
from agentrl.explore.plans import DISCOUNT, Model, lessons, plan_of
from support.locks import Lock, found


def counted(*steps: tuple[str, str, str], times: int = 1) -> Model:
    """A model of (cell, action, cell); `win` is a success and `pit` another end."""
    model = Model()
    for source, action, target in steps * times:
        over, success = target in ("win", "pit"), target == "win"
        model.note(source, action, target, is_over=over, is_success=success)
    return model


def test_a_plan_takes_the_shortest_way_from_every_cell_that_has_one() -> None:
    model = counted(
        ("a", "on", "b"), ("b", "on", "c"), ("c", "on", "win"), ("a", "jump", "c"),
        ("b", "back", "a"), ("d", "on", "pit"), ("e", "on", "b"),
    )  # fmt: skip
    plan = plan_of(model)
    assert plan.best == {"c": "on", "a": "jump", "b": "on", "e": "on"}
    assert plan.worth["e"] == pytest.approx(DISCOUNT**3)
    assert plan.steps("e") == pytest.approx(3)


def test_equal_ways_are_told_apart_by_the_action_s_text() -> None:
    model = counted(("a", "right", "win"), ("a", "left", "win"), ("a", "up", "win"))
    assert plan_of(model).best == {"a": "left"}


def test_where_chance_decides_the_likelier_way_is_taken_by_what_was_counted() -> None:
    risky = counted(("a", "short", "win")).led["a"]["short"]
    model = counted(("a", "short", "pit"), ("a", "long", "b"), ("b", "on", "win"), times=9)
    model.led["a"]["short"].update(risky)
    plan = plan_of(model)
    assert model.is_random
    assert plan.best["a"] == "long"
    assert plan.worth["a"] == pytest.approx((DISCOUNT * 9 / 10) ** 2), "one try of ten is doubt"


def test_what_was_counted_apart_is_counted_together() -> None:
    one, two = counted(("a", "on", "b")), counted(("b", "on", "win"))
    one.add(two)
    assert plan_of(one).best == {"a": "on", "b": "on"}


def test_a_lesson_begins_where_no_earlier_one_comes_through() -> None:
    graph = StateGraph("a")
    cells = [graph.start]
    for source, action, target in (("a", "on", "b"), ("a", "off", "x"), ("x", "off", "y")):
        cells.append(graph.add(graph.cells[source], action, target).cell)
    model = counted(("a", "on", "b"), ("b", "on", "win"), ("x", "on", "b"), ("y", "on", "x"))
    starts = lessons(cells, model, plan_of(model), count=9, longest=9, rng=Random(0))
    assert starts[0] == Start()
    assert "b" not in {start.cell for start in starts}
    assert starts[-1] in (Start(cell="x", actions=("off",)), Start(cell="y", actions=("off",) * 2))
    near = lessons(cells, model, plan_of(model), count=9, longest=4, rng=Random(0))
    assert near == (Start(), Start(cell="x", actions=("off",))), "y is 2 + 3 actions"
    assert lessons([Cell(key="z")], model, plan_of(model), count=9, longest=9, rng=Random(0)) == ()


def test_a_new_edge_shortens_the_ways_behind_it() -> None:
    near = Nearest("a")
    for source, target in ("ab", "bc", "cd", "de"):
        near.add(source, f"to {target}", target)
    assert near.add("a", "jump", "d") == ["d", "e"]
    assert [near.steps(key) for key in "abcde"] == [0, 1, 2, 1, 2]
    assert near.before("d") == ("a", "jump")
    assert near.add("b", "back", "a") == []


def test_lessons_are_optimal_ways_from_cells_that_were_seen(tmp_path: Path) -> None:
    env = BabyAI(level="DoorKey-5x5", cap=24)
    tasks = env.tasks("train")[:2]
    for result in found(GoExplore(lessons=4, shortcuts=True), env, tmp_path, tasks):
        assert len(result.lessons) == 4
        assert result.name is not None
        for start in result.lessons:
            env.reset(result.task)
            for action in start.actions:
                env.step(action)
            step = None
            while step is None or not (step.terminated or step.truncated):
                step = env.step(result.plan[result.name(env.state_key(), "")])
            assert step.info["success"]


def test_tasks_that_differ_in_luck_alone_share_a_plan(tmp_path: Path) -> None:
    kwargs: dict[str, Json] = {"map_name": "4x4", "is_slippery": True, "success_rate": 0.8}
    env = Gymnasium(id="FrozenLake-v1", kwargs=kwargs, split_by="seed")
    how = GoExplore(budget=400, more=400, lessons=2)
    together = found(how, env, tmp_path, env.tasks("train")[:6])
    plans = [one.plan for one in together]
    assert len(plans[0]) >= 9
    assert all(plan == plans[0] for plan in plans)
    apart = found(how, Lock(), tmp_path / "c")
    assert apart[0].plan == apart[1].plan, "locks look alike, so they are taken for one with luck"


def test_shortcuts_find_what_lies_near_the_limit(tmp_path: Path) -> None:
    env = BabyAI(level="DoorKey-6x6", cap=32)
    tasks = env.tasks("train")[:6]
    solved = {
        is_short: sum(
            bool(one.ways)
            for one in found(
                GoExplore(budget=1_500, steps=20, shortcuts=is_short, order="rare"),
                env, tmp_path / str(is_short), tasks,
            )
        )
        for is_short in (False, True)
    }  # fmt: skip
    assert solved[True] > solved[False]
