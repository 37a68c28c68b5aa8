"""Step-level groups from states that siblings share, by hand."""

from dataclasses import replace
from typing import Any

import pytest

from agentrl.algo.advantages.gigpo import GroupInGroup
from agentrl.core.types import AdvantageOut, Group, Level, Scored, Trajectory
from support.credit import TASK, turned


def visits(states: list[str | None], rewards: tuple[float, ...]) -> Trajectory:
    episode = turned([1] * len(states), sum(rewards), turns=rewards)
    turns = [replace(t, state_key=key) for t, key in zip(episode.turns, states, strict=True)]
    return replace(episode, turns=tuple(turns))


def out(estimator: GroupInGroup, *siblings: Trajectory) -> AdvantageOut:
    found = estimator(Scored(groups=(Group(task=TASK, trajectories=siblings),)))
    assert found.level is Level.TURN
    return found


def of(estimator: GroupInGroup, *siblings: Trajectory) -> tuple[Any, ...]:
    return out(estimator, *siblings).values[0]


GOOD, BAD = visits(["s0", "s1"], (0.0, 10.0)), visits(["s0", "s2"], (0.0, 0.0))


def test_episode_and_step_are_added() -> None:
    good, bad = of(GroupInGroup(), GOOD, BAD)
    assert good == pytest.approx([9.75, 5.0])
    assert bad == pytest.approx([-9.75, -5.0])


def test_a_state_that_was_met_once_adds_nothing() -> None:
    good, bad = of(GroupInGroup(), GOOD, visits(["other", "s2"], (0.0, 0.0)))
    assert (good, bad) == ([5.0, 5.0], [-5.0, -5.0])


def test_the_step_s_part_has_its_weight_and_the_discount_its_place() -> None:
    assert of(GroupInGroup(omega=0.0), GOOD, BAD)[0] == [5.0, 5.0]
    assert of(GroupInGroup(omega=2.0, gamma=0.5), GOOD, BAD)[0] == pytest.approx([10.0, 5.0])


def test_values_may_be_divided_by_their_deviation() -> None:
    good, bad = of(GroupInGroup(norm="mean_std"), GOOD, BAD)
    assert good == pytest.approx([2 * 0.7071, 0.7071], abs=1e-4)
    assert bad == pytest.approx([-2 * 0.7071, -0.7071], abs=1e-4)


def test_one_sibling_may_be_in_a_state_twice() -> None:
    loop = visits(["s", "s"], (0.0, 1.0))
    first, last = of(GroupInGroup(gamma=0.5), loop, visits(["x"], (1.0,)))[0]
    assert (first, last) == pytest.approx((0.5 - 0.75, 1.0 - 0.75))


def test_long_episodes_count_more_across_turns() -> None:
    long = visits(["a", "b", "c"], (0.0, 0.0, 1.0))
    short = visits(["d"], (0.0,))
    assert of(GroupInGroup(), long, short)[0][2] == pytest.approx(0.5)
    assert of(GroupInGroup(across_turns=True), long, short)[0][2] == pytest.approx(0.25)


def test_states_may_be_texts_that_nearly_agree() -> None:
    here = "a kitchen with a table and a door to the north"
    near = here.replace("table", "tablet")
    one, two = visits([here], (1.0,)), visits([near], (0.0,))
    assert of(GroupInGroup(), one, two)[0] == [0.5]
    assert of(GroupInGroup(similarity=0.9), one, two)[0] == [1.0]


def test_the_size_of_the_clusters_is_told() -> None:
    metric = out(GroupInGroup(), GOOD, BAD).metrics["credit/same_state"]
    assert metric.mean == pytest.approx((2 + 2 + 1 + 1) / 4)


def test_turns_without_a_key_have_the_episode_s_part_alone() -> None:
    assert of(GroupInGroup(), visits([None], (1.0,)), visits([None], (0.0,))) == ([0.5], [-0.5])
