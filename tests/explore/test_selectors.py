"""Which cell each selector returns to."""

import math
from collections import Counter
from random import Random

import numpy as np
import pytest

from agentrl.core.graph import Cell, StateGraph
from agentrl.explore.selectors.frontier import Frontier
from agentrl.explore.selectors.latent import Latent, lighten, neighbour, rank
from agentrl.explore.selectors.start import FromStart
from agentrl.explore.selectors.ucb import Ucb
from support.cells import among


def chain(length: int) -> StateGraph:
    """0 -> 1 -> ... by `on`; each cell has a second action, which was tried in 1 alone."""
    graph = StateGraph("0")
    for n in range(length - 1):
        graph.add(graph.cells[str(n)], "on", str(n + 1))
    for cell in graph.cells.values():
        cell.legal = 2
    graph.add(graph.cells["1"], "back", "0")
    return graph


def test_waypoints_are_thinned_from_the_goal_backwards() -> None:
    assert lighten([[4], [5], [5.1], [6], [7]], 1.0) == [0, 1, 3, 4]
    assert lighten([[1.0]], 1.0) == [0]
    assert lighten([], 1.0) == []


def test_ranks_are_geometric_and_cut_off() -> None:
    rng = Random(3)
    drawn = [rank(0.005, 10_000, rng) for _ in range(20_000)]
    assert sum(r <= 100 for r in drawn) / len(drawn) == pytest.approx(0.394, abs=0.01)
    cut = Counter(rank(0.5, 3, rng) for _ in range(7_000))
    assert [cut[r] / 7_000 for r in (1, 2, 3)] == pytest.approx([4 / 7, 2 / 7, 1 / 7], abs=0.02)


def test_identical_observations_have_a_finite_density_and_k_is_clamped() -> None:
    assert neighbour(np.zeros((5, 3), np.float32)) == [0.0] * 5
    assert neighbour(np.ones((1, 3), np.float32)) == [0.0]
    line = np.array([[0.0], [1.0], [2.0], [10.0]], np.float32)
    assert neighbour(line) == pytest.approx([1, 1, 1, 8])
    assert neighbour(line, k=99) == pytest.approx([10, 9, 8, 10])


def test_the_kth_neighbour_agrees_with_sorting_all_distances() -> None:
    points = np.random.default_rng(1).normal(size=(150, 4)).astype(np.float32)
    for k in (1, 7):
        slow = [sorted(math.dist(a, b) for b in points)[k] for a in points]
        assert neighbour(points, k) == pytest.approx(slow, abs=1e-4)
    assert neighbour(points) == pytest.approx(neighbour(points, 15))


def test_what_looks_like_nothing_else_is_returned_to() -> None:
    graph = StateGraph("0")
    graph.start.text = "a corridor with a lamp"
    for n in range(1, 30):
        graph.add(graph.start, f"go {n}", str(n)).cell.text = f"a corridor with a lamp {n % 3}"
    graph.cells["17"].text = "the throne room, gold everywhere"
    drawn = Counter(
        cell.key
        for _ in range(300)
        if (cell := Latent(p=0.5).choose(among(list(graph.cells.values()), Random(_), graph)))
    )
    assert drawn.most_common(1)[0][0] == "17"
    assert drawn["17"] > 120
    ends = [Cell(key="x", is_terminal=True)]
    assert Latent().choose(among(ends)) is None


def test_the_frontier_is_where_something_was_not_tried() -> None:
    graph = chain(5)
    cells = list(graph.cells.values())
    keys = [Frontier(order=o).choose(among(cells, graph=graph)) for o in ("newest", "oldest")]
    assert keys == [graph.cells["4"], graph.cells["0"]]
    drawn = {
        c.key
        for i in range(60)
        if (c := Frontier().choose(among(cells, Random(i), graph))) is not None
    }
    assert drawn == {"0", "2", "3", "4"}
    for cell in cells:
        cell.tried |= {"on": None, "back": None}
    assert Frontier().choose(among(cells, graph=graph)) is None


def test_the_adjacency_limit_keeps_near_and_gives_way_where_nothing_is_near() -> None:
    graph = chain(6)
    cells = list(graph.cells.values())
    near = Frontier(order="newest", within=2)
    assert near.choose(among(cells, graph=graph, here="1")) is graph.cells["3"]
    assert Frontier(order="nearest").choose(among(cells, graph=graph, here="3")) is graph.cells["3"]
    graph.cells["5"].tried |= {"on": None, "back": None}
    assert near.choose(among(cells, graph=graph, here="5")) is graph.cells["4"]


def test_the_bound_weighs_what_was_found_against_how_often() -> None:
    cells = [Cell(key="a", chosen=4, led=2), Cell(key="b", chosen=1, led=0)]
    total = 5
    assert Ucb(c=1.0).worth(cells[0], total) == pytest.approx(0.5 + math.sqrt(math.log(5) / 4))
    assert Ucb(c=0.1).choose(among(cells)) is cells[0]
    assert Ucb(c=2.0).choose(among(cells)) is cells[1]
    fresh = Cell(key="c")
    assert Ucb(c=0.1).choose(among([*cells, fresh])) is fresh
    assert Ucb().choose(among([Cell(key="x", is_terminal=True)])) is None


def test_the_floor_always_begins_at_the_start() -> None:
    graph = chain(3)
    cells = list(graph.cells.values())
    assert FromStart().choose(among(cells, graph=graph)) is graph.start
    assert FromStart().choose(among(cells[1:], graph=graph)) is None, "it was given up"
