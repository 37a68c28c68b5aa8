"""Estimators that choose what is learned: RAFT's ranking, expert iteration, successes beside RL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from agentrl.algo.advantages.expert_iteration import ExpertIteration
from agentrl.algo.advantages.grpo import GroupNormalised
from agentrl.algo.advantages.raft import RewardRanked
from agentrl.algo.advantages.reinforce_pp import ReinforcePlusPlus
from agentrl.algo.advantages.sft_mix import SftMix
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


def test_successes_are_learned_beside_whatever_the_estimator_says() -> None:
    [group] = scored([1.0, 0.0, 0.0, 1.0]).groups
    won = tuple(
        replace(t, success=t.score is not None and t.score.value > 0) for t in group.trajectories
    )
    step = Scored(groups=(replace(group, trajectories=won),))
    centred = SftMix(of=GroupNormalised(scale="none"), coef=0.25)(step)
    assert centred.values == ((0.75, -0.5, -0.5, 0.75),)
    raised = SftMix(of=ReinforcePlusPlus(), coef=0.25)(step).values[0]
    plain = ReinforcePlusPlus()(step).values[0]
    for more, token, i in zip(raised, plain, range(4), strict=True):
        assert isinstance(token, Sequence)
        assert isinstance(more, Sequence)
        assert list(more) == [value + (0.25 if i in (0, 3) else 0.0) for value in token]


def test_a_group_of_successes_teaches_what_succeeded() -> None:
    [group] = scored([1.0, 1.0]).groups
    won = tuple(replace(t, success=True) for t in group.trajectories)
    step = Scored(groups=(replace(group, trajectories=won),))
    assert SftMix()(step).values == ((0.1, 0.1),)
