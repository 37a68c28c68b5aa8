"""Credit from the graph of what siblings did: by hand, and by brute force over small groups."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise, product
from random import Random
from statistics import fmean, stdev
from typing import Any

import pytest

from agentrl.algo.advantages.g2po import GroupGraph
from agentrl.algo.advantages.gigpo import GroupInGroup
from agentrl.algo.advantages.graphgpo import GraphDistance
from agentrl.algo.advantages.hgpo import HierarchyOfGroups
from agentrl.core.graph import steps_to
from agentrl.core.protocols import Advantage
from agentrl.core.types import Group, Level, Scored, Trajectory
from support.credit import TASK, turned


def visits(states: Sequence[str | None], reward: float) -> Trajectory:
    episode = turned([1] * len(states), reward)
    turns = [replace(t, state_key=key) for t, key in zip(episode.turns, states, strict=True)]
    return replace(episode, turns=tuple(turns), success=reward > 0)


def of(estimator: Advantage, *siblings: Trajectory) -> tuple[Any, ...]:
    found = estimator(Scored(groups=(Group(task=TASK, trajectories=siblings),)))
    assert found.level is Level.TURN
    return found.values[0]


SHORT = visits("ab", 1.0)
LONG = visits("acab", 1.0)
LOST = visits("ac", 0.0)


def test_steps_to_a_goal_are_counted_backwards() -> None:
    edges = [("a", "b"), ("b", "goal"), ("a", "c"), ("c", "a"), ("x", "y")]
    assert steps_to("goal", edges) == {"goal": 0, "b": 1, "a": 2, "c": 3}


def test_a_turn_that_led_nearer_to_success_is_better_than_its_rivals() -> None:
    plain = GraphDistance(norm="mean", episode=0.0, gamma=0.5)
    short, long, lost = of(plain, SHORT, LONG, LOST)
    # distances: b 1, a 2, c 3, beyond a failure 4; from a: to b .5, c .125, b .5, c .125
    assert short == pytest.approx([0.1875, 0.0])
    assert long == pytest.approx([-0.1875, 0.25 - fmean([0.25, 0.0625]), 0.1875, 0.0])
    assert lost == pytest.approx([-0.1875, 0.0625 - fmean([0.25, 0.0625])])


def test_a_good_step_of_a_failed_episode_earns_and_a_detour_of_a_good_one_costs() -> None:
    wrong_end = visits("ab", 0.0)
    steps = of(GraphDistance(episode=0.0), SHORT, wrong_end, visits("ac", 0.0))
    assert steps[1][0] > 0 > steps[1][1]
    assert of(GraphDistance(episode=0.0), SHORT, LONG)[1][0] < 0


def test_where_nobody_succeeds_nothing_is_near() -> None:
    assert of(GraphDistance(), LOST, visits("ab", 0.0)) == ([0.0, 0.0], [0.0, 0.0])


def test_parts_have_their_weights() -> None:
    both = of(GraphDistance(norm="mean"), SHORT, LOST)
    step = of(GraphDistance(norm="mean", episode=0.0), SHORT, LOST)
    assert both[0] == pytest.approx([0.5 + s for s in step[0]])
    assert of(GraphDistance(norm="mean", omega=0.0), SHORT, LOST) == ([0.5, 0.5], [-0.5, -0.5])


def test_without_history_the_hierarchy_is_gigpo_s_step_part() -> None:
    group = (SHORT, LONG, LOST)
    gigpo = GroupInGroup()
    episodes = of(replace(gigpo, omega=0.0), *group)
    for own, whole, episode in zip(
        of(HierarchyOfGroups(history=0), *group), of(gigpo, *group), episodes, strict=True
    ):
        assert own == pytest.approx([w - e for w, e in zip(whole, episode, strict=True)])


def test_longer_common_histories_weigh_more() -> None:
    one, two, three = visits("ab", 1.0), visits("ab", 0.0), visits("cb", 0.0)
    found = of(HierarchyOfGroups(gamma=1.0, history=1), one, two, three)
    # state b: (1, 0, 0) around 1/3; after a, b: (1, 0) around 1/2; weights 2/5 and 3/5
    assert found[0] == pytest.approx([0.5, 0.4 * 2 / 3 + 0.6 * 0.5])
    assert found[1] == pytest.approx([-0.5, -0.4 / 3 - 0.6 * 0.5])
    assert found[2] == pytest.approx([0.0, -1 / 3])
    flat = of(HierarchyOfGroups(gamma=1.0, history=1, alpha=0.0), one, two, three)
    assert flat[0][1] == pytest.approx(0.5 * 2 / 3 + 0.5 * 0.5)
    with_episode = of(HierarchyOfGroups(gamma=1.0, history=0, episode=True), one, two, three)
    assert with_episode[2] == pytest.approx([-1 / 3, -1 / 3])


def test_the_gain_of_a_state_s_value_is_credit() -> None:
    found = of(GroupGraph(gamma=0.5, omega=1.0), SHORT, LOST)
    # V(a) = (.25 + 0) / 2, V(b) = .5, V(c) = 0; gains .375, .5, -.125, 0 around .1875
    assert found[0] == pytest.approx([0.5 + 0.25 + 0.1875, 0.5 + 0.3125])
    assert found[1] == pytest.approx([-0.5 - 0.25 - 0.3125, -0.5 - 0.1875])


@pytest.mark.parametrize("estimator", [GraphDistance(), GroupGraph(), HierarchyOfGroups()])
def test_equal_siblings_that_did_the_same_have_no_step_credit(estimator: Advantage) -> None:
    found = of(estimator, SHORT, SHORT)
    if not isinstance(estimator, GroupGraph):
        assert found == ([0.0, 0.0], [0.0, 0.0])
    assert found[0] == found[1]


@pytest.mark.parametrize("estimator", [GraphDistance(), GroupGraph(), HierarchyOfGroups()])
def test_turns_without_a_key_are_nobody_s_rivals(estimator: Advantage) -> None:
    one, two = visits([None, None], 1.0), visits([None, None], 0.0)
    step = replace(estimator, **({"episode": 0.0} if isinstance(estimator, GraphDistance) else {}))  # type: ignore[type-var]
    if not isinstance(estimator, GroupGraph):
        assert of(step, one, two) == ([0.0, 0.0], [0.0, 0.0])
    keyed = of(estimator, visits("pq", 1.0), visits("rs", 0.0))
    assert of(estimator, one, two) == keyed


def brute_distance(edges: list[tuple[str, str]], state: str) -> float:
    """The length of the shortest of all simple ways to success."""
    best, nodes = math.inf, sorted({n for edge in edges for n in edge} - {"success"})
    for count in range(len(nodes) + 1):
        for middle in product(nodes, repeat=count):
            way = (state, *middle, "success")
            if all(pair in edges for pair in pairwise(way)):
                return min(best, count + 1)
    return best


def test_small_random_groups_equal_the_definition() -> None:
    reached = 0
    for seed in range(60):
        rng = Random(seed)
        group = [
            visits(rng.choices("abc", k=rng.randint(1, 3)), rng.choice((0.0, 1.0))) for _ in "123"
        ]
        edges: list[tuple[str, str]] = []
        turns: list[tuple[int, int, str, str]] = []
        for i, t in enumerate(group):
            keys = [str(turn.state_key) for turn in t.turns]
            ends = [*keys[1:], "success" if t.success else f"end-{i}"]
            edges += zip(keys, ends, strict=True)
            turns += [(i, k, a, b) for k, (a, b) in enumerate(zip(keys, ends, strict=True))]
        known = {s: brute_distance(edges, s) for s in "abc"} | {"success": 0.0}
        lost = max(d for d in known.values() if d < math.inf) + 1
        reached += any(0 < d < math.inf for d in known.values())
        worth = {
            (i, k): 0.9 ** (d if (d := known.get(b, math.inf)) < math.inf else lost)
            for i, k, _, b in turns
        }
        found = of(GraphDistance(gamma=0.9, episode=0.0), *group)
        for i, k, state, _ in turns:
            pool = [worth[j, m] for j, m, other, _ in turns if other == state]
            spread = stdev(pool) if len(set(pool)) > 1 else math.inf
            expected = (worth[i, k] - fmean(pool)) / (spread + 1e-6)
            assert found[i][k] == pytest.approx(expected, abs=1e-9)
    assert reached > 20
