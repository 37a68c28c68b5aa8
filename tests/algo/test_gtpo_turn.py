"""Turn-level returns over a group, by hand."""

from dataclasses import replace
from typing import Any

import pytest

from agentrl.algo.advantages.gtpo_turn import TurnReturns, alike
from agentrl.core.types import Group, Level, Scored, Trajectory
from support.credit import TASK, turned


def of(estimator: TurnReturns, *siblings: Trajectory) -> tuple[Any, ...]:
    out = estimator(Scored(groups=(Group(task=TASK, trajectories=siblings),)))
    assert out.level is Level.TURN
    return out.values[0]


WON, LOST = turned([1, 1, 1], 1.0, turns=(0.0, 0.0, 1.0)), turned([1, 1, 1], 0.0)


def test_statistics_over_all_turns() -> None:
    won, lost = of(TurnReturns(eps=0.0), WON, LOST)
    assert won == pytest.approx([0.7189, 0.8995, 1.1002], abs=1e-4)
    assert lost == pytest.approx([-0.9062] * 3, abs=1e-4)


def test_statistics_by_number_of_the_turn() -> None:
    won, lost = of(TurnReturns(pool="index", eps=0.0), WON, LOST)
    assert won == pytest.approx([0.7071] * 3, abs=1e-4)
    assert lost == pytest.approx([-0.7071] * 3, abs=1e-4)


def test_a_turn_that_one_sibling_alone_reached_gives_nothing() -> None:
    longer, shorter = of(TurnReturns(pool="index"), WON, turned([1], 0.0))
    assert longer[1:] == [0.0, 0.0]
    assert shorter[0] < 0 < longer[0]


def test_a_failure_is_paid_for_what_it_shares_with_a_success() -> None:
    won = replace(turned([4], 1.0), success=True)
    same = replace(turned([4], 0.0), success=False)
    far = replace(turned([4], 0.0, first_id=500), success=False)
    assert alike(won, same) == 1.0
    assert alike(won, far) == 0.0
    assert alike(won, turned([2], 0.0)) == pytest.approx(2 * 1 / (4 + 2))
    plain = of(TurnReturns(), won, same, far)
    assert plain[1] == plain[2]
    shaped = of(TurnReturns(similarity=0.5, eps=0.0), won, same, far)
    assert [a[0] for a in shaped] == pytest.approx([1.0, 0.0, -1.0])
