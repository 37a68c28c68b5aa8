"""Cells are chosen by how seldom they were seen."""

from collections import Counter
from random import Random

import pytest

from agentrl.core.graph import Cell
from agentrl.explore.selectors.counts import CountWeighted
from support.cells import among


def test_the_weights_of_three_counts() -> None:
    cells = [Cell(key=str(n), seen=n) for n in (0, 3, 8)]
    assert [CountWeighted().weight(c) for c in cells] == pytest.approx([1.0, 0.5, 1 / 3])
    rng, n = Random(5), 20_000
    drawn = Counter(
        chosen.key for _ in range(n) if (chosen := CountWeighted().choose(among(cells, rng)))
    )
    shares = [drawn[key] / n for key in "038"]
    assert shares == pytest.approx([0.5455, 0.2727, 0.1818], abs=0.01)


def test_draws_that_are_refused_again_and_again_end_in_an_exact_one() -> None:
    cells = [Cell(key="a", seen=10**9), Cell(key="b", seen=4 * 10**9)]
    rng = Random(2)
    drawn = Counter(
        chosen.key for _ in range(3_000) if (chosen := CountWeighted().choose(among(cells, rng)))
    )
    assert drawn["a"] / 3_000 == pytest.approx(2 / 3, abs=0.04)


def test_each_count_has_its_weight() -> None:
    cell = Cell(key="a", seen=3, chosen=8, since_new=0)
    assert CountWeighted(seen=1, chosen=3, since_new=2).weight(cell) == pytest.approx(0.5 + 1 + 2)
    assert CountWeighted(power=1.0).weight(cell) == pytest.approx(0.25)


def test_where_nothing_can_follow_nothing_is_chosen() -> None:
    ends = [Cell(key="a", is_terminal=True)]
    assert CountWeighted().choose(among(ends)) is None
    assert CountWeighted().choose(among([*ends, Cell(key="b", seen=99)])) is not None


def test_counts_may_fall_with_powers_of_their_own() -> None:
    cell = Cell(key="a", seen=3, chosen=3, since_new=8)
    how = CountWeighted(chosen=1, since_new=1, chosen_power=1.0, since_new_power=0.0)
    assert how.weight(cell) == pytest.approx(0.5 + 0.25 + 1)


def test_actions_that_were_not_tried_weigh_and_cells_without_any_can_be_left_out() -> None:
    some = Cell(key="a", legal=4, tried={"x": None})
    none = Cell(key="b", legal=1, tried={"x": None})
    unknown = Cell(key="c")
    how = CountWeighted(seen=0, untried=0.5, only_untried=True)
    assert [how.weight(cell) for cell in (some, none, unknown)] == [1.5, 0.0, 0.0]
    assert how.choose(among([none, some])) is some
    assert CountWeighted(only_untried=True).choose(among([none])) is None


def test_high_scores_and_levels_weigh_more() -> None:
    cells = [Cell(key="a", score=2.0), Cell(key="b", score=2.0), Cell(key="c", score=0.0)]
    assert CountWeighted(score=1).weights(cells) == pytest.approx([2, 2, 1 + 1 / 2**0.5])
    assert CountWeighted(level="score").weights(cells) == pytest.approx([1, 1, 0.01])
    ends = [Cell(key="d", score=3.0, is_terminal=True)]
    assert CountWeighted(score=1).weights(ends) == [0.0]
