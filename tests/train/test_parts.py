"""What is logged of the parts of a reward."""

from dataclasses import replace

import pytest

from agentrl.core.types import Score, Trajectory
from agentrl.train.parts import part_metrics
from support.credit import turned


def scored(**parts: float) -> Trajectory:
    return replace(turned([1], 0.0), score=Score(value=0.0, parts=parts))


def test_two_parts_that_rise_and_fall_against_each_other_are_found() -> None:
    episodes = [scored(win=1.0, short=-2.0), scored(win=0.0, short=0.0), scored(win=1.0, short=-2)]
    found = part_metrics(episodes)
    assert found["reward/parts_correlation"].mean == pytest.approx(-1.0)
    assert found["reward/win"].mean == pytest.approx(2 / 3)
    assert found["reward/short"].mean == pytest.approx(-4 / 3)


def test_of_several_pairs_the_lowest_counts() -> None:
    episodes = [scored(a=0, b=0, c=3), scored(a=1, b=1, c=2), scored(a=2, b=2, c=0)]
    assert part_metrics(episodes)["reward/parts_correlation"].mean < -0.9


def test_a_single_part_or_one_that_does_not_vary_says_nothing() -> None:
    assert part_metrics([scored(win=1.0), scored(win=0.0)]) == {}
    assert "reward/parts_correlation" not in part_metrics([scored(a=1, b=1), scored(a=2, b=1)])
    assert part_metrics([replace(turned([1], 0.0), score=None)]) == {}
