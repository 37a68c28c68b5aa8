"""The score of a greedy episode is taken from what each turn and those after it were paid."""

from dataclasses import replace

import pytest

from agentrl.algo.advantages.remax import ReMax
from agentrl.core.types import Failure, Group, Level, Scored, Stop, Trajectory
from support.credit import TASK, turned


def group(greedy: Trajectory | None, *rewards: float) -> Group:
    siblings = tuple(turned([2], reward) for reward in rewards)
    return Group(task=TASK, trajectories=siblings, greedy=greedy)


def test_the_greedy_score_is_taken_from_every_turn_s_return() -> None:
    whole = turned([1, 2], 1.5, turns=(0.5, 1.0))
    step = Scored(groups=(replace(group(turned([1], 0.25), 1.0), trajectories=(whole,)),))
    out = ReMax()(step)
    assert out.level is Level.TURN
    assert out.values[0][0] == pytest.approx([1.25, 0.75])
    assert out.metrics["credit/greedy"].mean == 0.25
    assert out.metrics["credit/without_greedy"].total == 0.0


def test_adding_a_constant_to_every_reward_changes_nothing() -> None:
    plain = ReMax()(Scored(groups=(group(turned([1], 0.25), 1.0, 0.0),)))
    moved = ReMax()(Scored(groups=(group(turned([1], 3.25), 4.0, 3.0),)))
    assert moved.values == plain.values


@pytest.mark.parametrize(
    "greedy",
    [
        None,
        replace(turned([1], 1.0), score=None),
        replace(
            turned([1], 1.0),
            stop=Stop.ERROR,
            score=None,
            failure=Failure(where="engine", error="gone"),
        ),
    ],
    ids=["none", "unscored", "failed"],
)
def test_without_a_greedy_score_the_siblings_mean_stands_in_and_is_counted(
    greedy: Trajectory | None,
) -> None:
    out = ReMax()(Scored(groups=(group(greedy, 1.0, 0.0), group(turned([1], 1.0), 1.0))))
    assert out.values == (([0.5], [-0.5]), ([0.0],))
    assert out.metrics["credit/without_greedy"].total == 1.0
