"""Estimators that choose what is learned: RAFT's ranking and expert iteration."""

from __future__ import annotations

from agentrl.algo.advantages.expert_iteration import ExpertIteration
from agentrl.algo.advantages.raft import RewardRanked
from agentrl.core.types import AdvantageOut, Group, Scored
from support.credit import TASK, rewarded, scored, turned


def kept(out: AdvantageOut) -> list[list[bool]]:
    assert out.keep is not None
    return [[bool(keep and any(keep)) for keep in group] for group in out.keep]


def test_the_best_of_a_group_is_kept_and_the_rest_left_out() -> None:
    out = RewardRanked()(scored([0.2, 0.9, 0.5, None]))
    assert out.values == ((0.0, 1.0, 0.0, None),)
    assert kept(out) == [[False, True, False, False]]
    assert out.metrics["groups/kept"].mean == 1 / 3


def test_ties_share_the_last_place_so_that_each_group_counts_the_same() -> None:
    out = RewardRanked()(scored([1.0, 0.0, 0.0, 1.0], [1.0, 1.0, 1.0, 1.0]))
    assert out.values == ((0.5, 0.0, 0.0, 0.5), (0.25,) * 4)
    three = RewardRanked(best=3)(scored([1.0, 0.5, 0.5, 0.5, 0.5]))
    assert three.values == ((1.0, 0.5, 0.5, 0.5, 0.5),)


def test_a_group_whose_best_is_too_low_is_left_out() -> None:
    out = RewardRanked(min_reward=0.5)(scored([0.4, 0.1], [0.5, 0.1]))
    assert out.values == ((0.0, 0.0), (1.0, 0.0))
    assert kept(out) == [[False, False], [True, False]]
    assert RewardRanked()(scored([-0.4, -1.0])).values == ((1.0, 0.0),)


def test_more_places_than_trajectories_keep_them_all() -> None:
    assert RewardRanked(best=9)(scored([0.4, 0.1])).values == ((1.0, 1.0),)


def test_expert_iteration_keeps_what_is_good_enough() -> None:
    group = Group(
        task=TASK,
        trajectories=tuple(
            turned([2, 1], reward, first_id=10 * i)
            for i, reward in enumerate((1.0, 0.9, 1.5, 0.0), start=1)
        ),
    )
    out = ExpertIteration()(Scored(groups=(group,)))
    assert out.values == ((1.0, 0.0, 1.0, 0.0),)
    assert kept(out) == [[True, False, True, False]]


def test_the_same_tokens_are_learned_once() -> None:
    """All trajectories of this helper say the same."""
    assert ExpertIteration()(Scored(groups=(rewarded([1.0, 1.0, 0.0, 1.0]),))).values == (
        (1 / 3, 1 / 3, 0.0, 1 / 3),
    )
