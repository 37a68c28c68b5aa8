"""Which groups teach something."""

from dataclasses import replace

import pytest

from agentrl.algo.filters.accuracy import Accuracy
from agentrl.algo.filters.zero_std import ZeroStd
from agentrl.core.errors import ConfigError
from agentrl.core.types import Group
from agentrl.train.prepare import usable
from support.credit import rewarded

FLAT, MIXED, LONE = rewarded([1.0, 1.0]), rewarded([1.0, 0.0, None]), rewarded([1.0, None])


def solved(*successes: bool | None, rewards: tuple[float, ...] | None = None) -> Group:
    """A group with these verdicts; rewards 0, 1, 2, ... unless given."""
    group = rewarded(rewards or tuple(map(float, range(len(successes)))))
    return replace(
        group,
        trajectories=tuple(
            replace(t, success=s) for t, s in zip(group.trajectories, successes, strict=True)
        ),
    )


def test_groups_without_two_different_scores_are_dropped() -> None:
    assert ZeroStd()([FLAT, MIXED, LONE, rewarded([]), MIXED]) == [MIXED, MIXED]


@pytest.mark.parametrize(
    ("wins", "is_kept"), [(0, False), (1, True), (5, True), (9, True), (10, False)]
)
def test_tasks_that_are_too_hard_or_too_easy_are_dropped(wins: int, is_kept: bool) -> None:
    group = solved(*[i < wins for i in range(10)])
    assert Accuracy()([group]) == ([group] if is_kept else [])
    assert Accuracy(low=0.0, high=1.0)([group]) == [group]


def test_equal_scores_are_dropped_whatever_the_share_of_successes() -> None:
    assert Accuracy()([solved(True, False, rewards=(1.0, 1.0))]) == []


def test_bounds_that_leave_nothing_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"low: must be at most high=0\.2"):
        Accuracy(low=0.5, high=0.2)


def test_what_a_filter_drops_is_counted_apart_from_what_cannot_be_compared() -> None:
    kept, metrics = usable([FLAT, MIXED, LONE, FLAT], ZeroStd())
    assert kept == [MIXED]
    counts = {key: metrics[f"groups/{key}"].total for key in ("dropped", "filtered", "trained")}
    assert counts == {"dropped": 1, "filtered": 2, "trained": 1}
    assert metrics["groups/frac_zero_std"].mean == pytest.approx(2 / 3)
