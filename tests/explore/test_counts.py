"""Cells are chosen by how seldom they were seen."""

from collections import Counter
from random import Random

import pytest

from agentrl.core.graph import Cell
from agentrl.explore.selectors.counts import CountWeighted


def test_the_weights_of_three_counts() -> None:
    cells = [Cell(key=str(n), seen=n) for n in (0, 3, 8)]
    assert [CountWeighted().weight(c) for c in cells] == pytest.approx([1.0, 0.5, 1 / 3])
    rng, n = Random(5), 20_000
    drawn = Counter(chosen.key for _ in range(n) if (chosen := CountWeighted().choose(cells, rng)))
    shares = [drawn[key] / n for key in "038"]
    assert shares == pytest.approx([0.5455, 0.2727, 0.1818], abs=0.01)


def test_draws_that_are_refused_again_and_again_end_in_an_exact_one() -> None:
    cells = [Cell(key="a", seen=10**9), Cell(key="b", seen=4 * 10**9)]
    rng = Random(2)
    drawn = Counter(
        chosen.key for _ in range(3_000) if (chosen := CountWeighted().choose(cells, rng))
    )
    assert drawn["a"] / 3_000 == pytest.approx(2 / 3, abs=0.04)


def test_each_count_has_its_weight() -> None:
    cell = Cell(key="a", seen=3, chosen=8, since_new=0)
    assert CountWeighted(seen=1, chosen=3, since_new=2).weight(cell) == pytest.approx(0.5 + 1 + 2)
    assert CountWeighted(power=1.0).weight(cell) == pytest.approx(0.25)


def test_where_nothing_can_follow_nothing_is_chosen() -> None:
    ends = [Cell(key="a", is_terminal=True)]
    assert CountWeighted().choose(ends, Random(0)) is None
    assert CountWeighted().choose([*ends, Cell(key="b", seen=99)], Random(0)) is not None
