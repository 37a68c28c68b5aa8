"""One hand-made group from turns to the loss, every number worked out by hand.

The vocabulary: 1 system, 2 task, 3 end of turn, 4 observation, 5..8 actions, 9 a summary.

    A  turn 0: [1 2] -> 5 3          turn 1: [1 2 5 3 4] -> 6 3     (row 0)
       turn 2: [1 9] -> 7 3                                         (row 1: history was rewritten)
    B  branches off A after turn 0:  turn 1: [1 2 5 3 4] -> 8 3
    C  turn 0: [1 2] -> 5 5 (cut)    turn 1: [1 2 5 5 3 4] -> 6 3   (stale sampler)
    D  failed in the env

Rewards 1, 0, 0.2 and none. Leave-one-out advantages: 1 - 0.1 = 0.9, 0 - 0.6 = -0.6,
0.2 - 0.5 = -0.3. Turn 0 of A is shared with B: mean(0.9, -0.6) = 0.15, trained in A's row alone.
"""

import asyncio
from dataclasses import replace
from math import log, nan
from typing import Any, Literal

import pytest
import torch

from agentrl.algo.advantages.grpo import GroupNormalised
from agentrl.algo.advantages.rloo import LeaveOneOut
from agentrl.algo.aggregate import Constant, SequenceMeanTokenMean, TokenMean
from agentrl.algo.kl import K3
from agentrl.algo.losses.ppo_clip import PpoClip
from agentrl.algo.mismatch.tis import TruncatedImportance
from agentrl.algo.spread import spread
from agentrl.core.errors import DataError
from agentrl.core.protocols import Aggregate
from agentrl.core.tensors import Scores
from agentrl.core.types import (
    AdvantageOut,
    Failure,
    Finish,
    Fork,
    Group,
    Image,
    Level,
    Score,
    Scored,
    Stop,
    Task,
    Trajectory,
    Turn,
)
from agentrl.rewards.env import EnvReward
from agentrl.rollout.fold import fold
from agentrl.rollout.group import score_group
from agentrl.train.objective import Objective
from agentrl.train.prepare import TrainRow, collate, micro_batches, usable
from agentrl.train.score import Padded

TASK = Task(id="hand/0", seed=0)
PICTURE = Image(b"a picture")


def turn(
    prompt: tuple[int, ...],
    actions: tuple[int, ...],
    logprobs: tuple[float, ...],
    **more: Any,
) -> Turn:
    return Turn(prompt_ids=prompt, action_ids=actions, sampler_logprobs=logprobs, **more)


FIRST = turn((1, 2), (5, 3), (log(0.5), log(0.5)), versions=((1, 2),), images=(PICTURE.hash,))
A = Trajectory(
    task=TASK,
    turns=(
        FIRST,
        turn((1, 2, 5, 3, 4), (6, 3), (log(0.4), log(0.9)), versions=((1, 2),), reward=0.25),
        turn((1, 9), (7, 3), (log(0.8), log(0.3)), versions=((1, 2),), reward=0.75, row=1),
    ),
    stop=Stop.DONE,
    success=True,
    pixels={PICTURE.hash: PICTURE},
)
B = Trajectory(
    task=TASK,
    turns=(FIRST, turn((1, 2, 5, 3, 4), (8, 3), (log(0.4), log(0.5)), versions=((1, 2),))),
    stop=Stop.DONE,
    success=False,
    parent=Fork(trajectory=0, turn=1),
)
C = Trajectory(
    task=TASK,
    turns=(
        turn((1, 2), (5, 5), (log(0.5), log(0.1)), versions=((1, 2),), finish=Finish.LENGTH),
        turn((1, 2, 5, 5, 3, 4), (6, 3), (log(0.2), log(0.1)), versions=((0, 2),), reward=0.2),
    ),
    stop=Stop.MAX_TURNS,
    success=False,
)
D = Trajectory(
    task=TASK,
    turns=(FIRST,),
    stop=Stop.ERROR,
    failure=Failure(where="env", error="the browser went away"),
)

NO, YES = False, True


def scored_group() -> Group:
    unscored = Group(task=TASK, trajectories=(A, B, C, D))
    return asyncio.run(score_group(unscored, EnvReward(), timeout_s=1.0))


def train_rows(shared: Literal["once", "each"] = "once") -> list[TrainRow]:
    group = scored_group()
    rows = fold(group, index=0, temperature=1.0)
    out = LeaveOneOut()(Scored(groups=(group,)))
    return [
        TrainRow(row=row, advantages=credit)
        for row, credit in zip(rows, spread(rows, [group], out, shared=shared), strict=True)
    ]


def test_rewards_become_scores_and_a_failed_sibling_gets_none() -> None:
    group = scored_group()
    assert [t.score and t.score.value for t in group.trajectories] == [1.0, 0.0, 0.2, None]
    assert group.trajectories[0].score == Score(
        value=1.0, turns=(0.0, 0.25, 0.75), parts={"env": 1.0}
    )
    assert group.scored == (0, 1, 2)
    kept, metrics = usable([group])
    assert kept == [group]
    assert metrics["episodes/failed_env"].total == 1
    assert metrics["groups/frac_zero_std"].mean == 0


def test_a_group_with_one_scored_trajectory_is_dropped_and_counted() -> None:
    kept, metrics = usable([replace(scored_group(), trajectories=(A, D))])
    assert kept == []
    assert metrics["groups/dropped"].total == 1


def test_turns_fold_into_rows_and_the_mask_is_exactly_the_sampled_tokens() -> None:
    a0, a1, b, c = fold(scored_group(), index=0)
    assert a0.ids == (1, 2, 5, 3, 4, 6, 3)
    assert a0.mask == (NO, NO, YES, YES, NO, YES, YES)
    assert a0.turn_of == (-1, -1, 0, 0, -1, 1, 1)
    assert a0.sampler_logprobs == (0.0, 0.0, log(0.5), log(0.5), 0.0, log(0.4), log(0.9))
    assert a0.images == (PICTURE.hash,)
    assert a0.inherited == (NO,) * 7
    assert a1.ids == (1, 9, 7, 3)
    assert a1.turn_of == (-1, -1, 2, 2)
    assert a1.images == ()
    assert b.ids == (1, 2, 5, 3, 4, 8, 3)
    assert b.inherited == (NO, NO, YES, YES, NO, NO, NO)
    assert c.ids == (1, 2, 5, 5, 3, 4, 6, 3)
    assert c.mask == (NO, NO, YES, YES, NO, NO, YES, YES), "the appended end of turn is not trained"
    assert c.versions == (-1, -1, 1, 1, -1, -1, 0, 0)
    assert [(r.group, r.trajectory) for r in (a0, a1, b, c)] == [(0, 0), (0, 0), (0, 1), (0, 2)]


def test_a_turn_that_lies_about_its_row_is_refused() -> None:
    liar = replace(A, turns=(A.turns[0], replace(A.turns[2], row=0)), score=Score(value=0.0))
    with pytest.raises(DataError, match="turn 1 says that it lies in row 0"):
        fold(Group(task=TASK, trajectories=(liar,)), index=0)


def test_advantages_come_from_scored_siblings_alone() -> None:
    scored = Scored(groups=(scored_group(),))
    *values, failed = LeaveOneOut()(scored).values[0]
    assert values == pytest.approx([0.9, -0.6, -0.3])
    assert failed is None
    std = 0.28**0.5  # deviations 0.6, -0.4, -0.2: (0.36 + 0.16 + 0.04) / 2
    *values, failed = GroupNormalised(eps=0.0)(scored).values[0]
    assert values == pytest.approx([0.6 / std, -0.4 / std, -0.2 / std])
    assert failed is None


def test_shared_tokens_are_trained_once_with_the_mean_of_their_leaves() -> None:
    a0, a1, b, c = (item.advantages for item in train_rows("once"))
    assert a0.mask == (NO, NO, YES, YES, NO, YES, YES)
    assert a0.values == pytest.approx((0, 0, 0.15, 0.15, 0, 0.9, 0.9))
    assert a1.values == pytest.approx((0, 0, 0.9, 0.9))
    assert b.mask == (NO, NO, NO, NO, NO, YES, YES)
    assert b.values == pytest.approx((0, 0, 0, 0, 0, -0.6, -0.6))
    assert c.values == pytest.approx((0, 0, -0.3, -0.3, 0, 0, -0.3, -0.3))


def test_shared_tokens_are_trained_in_every_row_under_each() -> None:
    a0, _, b, _ = (item.advantages for item in train_rows("each"))
    assert a0.values == pytest.approx((0, 0, 0.9, 0.9, 0, 0.9, 0.9))
    assert b.mask == (NO, NO, YES, YES, NO, YES, YES)
    assert b.values == pytest.approx((0, 0, -0.6, -0.6, 0, -0.6, -0.6))


def test_turn_values_go_to_each_token_of_the_turn_in_whichever_row_it_lies() -> None:
    group = scored_group()
    rows = fold(group, index=0)
    values = ((1.0, 2.0, 3.0), (1.0, 5.0), (6.0, 7.0), None)
    out = AdvantageOut(values=(values,), level=Level.TURN)
    a0, a1, b, c = spread(rows, [group], out)
    assert a0.values == (0.0, 0.0, 1.0, 1.0, 0.0, 2.0, 2.0)
    assert a1.values == (0.0, 0.0, 3.0, 3.0)
    assert b.values == (0.0,) * 5 + (5.0, 5.0)
    assert c.values == (0.0, 0.0, 6.0, 6.0, 0.0, 0.0, 7.0, 7.0)


def test_token_values_and_a_keep_mask_reach_their_tokens() -> None:
    group = scored_group()
    rows = fold(group, index=0)
    out = AdvantageOut(
        values=(((1, 2, 3, 4, 5, 6), (1, 2, 8, 9), (1, 2, 3, 4), None),),
        level=Level.TOKEN,
        keep=(((YES, YES, NO, YES, YES, YES), None, None, None),),
    )
    a0, a1, b, _ = spread(rows, [group], out)
    assert a0.values == (0.0, 0.0, 1.0, 2.0, 0.0, 0.0, 4.0)
    assert a0.mask == (NO, NO, YES, YES, NO, NO, YES)
    assert a1.values == (0.0, 0.0, 5.0, 6.0)
    assert b.values == (0.0,) * 5 + (8.0, 9.0)


def test_values_of_the_wrong_length_are_refused() -> None:
    group = scored_group()
    out = AdvantageOut(values=(((1.0, 2.0), (1.0, 2.0), (1.0, 2.0), None),), level=Level.TURN)
    with pytest.raises(DataError, match="expected 3 turn values for trajectory 0"):
        spread(fold(group, index=0), [group], out)


# Probabilities under the weights before the update (old) and under the live ones (new), on the
# sampled tokens in order. Ratios: A0 1, 1.5, 0.5, 1; A1 1, 2; B (2 inherited) 0.5, 1.5; C all 1.
OLD = {
    "a0": (0.5, 0.5, 0.4, 0.9),
    "a1": (0.8, 0.3),
    "b": (0.5, 0.5, 0.4, 0.5),
    "c": (0.5, 0.1, 0.3, 0.4),
}
NEW = {
    "a0": (0.5, 0.75, 0.2, 0.9),
    "a1": (0.8, 0.6),
    "b": (0.5, 0.5, 0.2, 0.75),
    "c": (0.5, 0.1, 0.3, 0.4),
}


def along(item: TrainRow, probabilities: tuple[float, ...]) -> tuple[float, ...]:
    rest = iter(probabilities)
    return tuple(log(next(rest)) if m else 0.0 for m in item.row.mask)


def items_and_scores() -> tuple[list[TrainRow], dict[int, tuple[float, ...]]]:
    items = [
        replace(item, old_logprobs=along(item, OLD[name]), ref_logprobs=along(item, NEW[name]))
        for item, name in zip(train_rows(), OLD, strict=True)
    ]
    return items, {id(i): along(i, NEW[name]) for i, name in zip(items, NEW, strict=True)}


LENGTHS = {(0, 0): 6, (0, 1): 2, (0, 2): 4}


def loss_of(
    items: list[TrainRow], new: dict[int, tuple[float, ...]], objective: Objective
) -> float:
    batch = collate(items, lengths=LENGTHS, n_tokens=12, n_trajectories=3)
    width = batch.ids_BT.shape[1]
    logp_BT = torch.tensor([new[id(i)] + (0.0,) * (width - len(new[id(i)])) for i in items])
    loss, _ = objective(batch, Scores(logp_BT=logp_BT, entropy_BT=torch.zeros_like(logp_BT)))
    return float(loss)


def objective(aggregate: Aggregate, **more: Any) -> Objective:
    return Objective(
        loss=PpoClip(low=0.2, high=0.3), aggregate=aggregate, mismatch=TruncatedImportance(), **more
    )


# Per token, max(-A r, -A clip(r, .8, 1.3)):
#   A0  -.15, -.15 * 1.3 = -.195, -.9 * .5 = -.45, -.9                       sum -1.695
#   A1  -.9, -.9 * 1.3 = -1.17                                              sum -2.07
#   B   .6 * .8 = .48, .6 * 1.5 = .9                                        sum  1.38
#   C   .3, .3, and the stale turn .3 * (.3/.2) = .45, .3 * min(.4/.1, 2) = .6   sum 1.65
@pytest.mark.parametrize(
    ("aggregate", "expected"),
    [
        (TokenMean(), -0.735 / 12),
        (SequenceMeanTokenMean(), ((-1.695 - 2.07) / 6 + 1.38 / 2 + 1.65 / 4) / 3),
        (Constant(length=8), -0.735 / (8 * 3)),
    ],
)
def test_the_loss_is_the_one_worked_out_by_hand(aggregate: Aggregate, expected: float) -> None:
    items, new = items_and_scores()
    assert loss_of(items, new, objective(aggregate)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("budget", [1, 16, 10_000])
def test_the_loss_does_not_depend_on_how_the_batch_was_cut(budget: int) -> None:
    items, new = items_and_scores()
    parts = micro_batches(items, budget, Padded())
    assert sum(len(part) for part in parts) == 4
    total = sum(loss_of(part, new, objective(SequenceMeanTokenMean())) for part in parts)
    assert total == pytest.approx(0.475 / 3, rel=1e-5)


def test_rows_of_one_trajectory_stay_together() -> None:
    items, _ = items_and_scores()
    keys = [{item.key for item in part} for part in micro_batches(items, 1, Padded())]
    assert sorted(map(sorted, keys)) == [[(0, 0)], [(0, 1)], [(0, 2)]]


def test_the_reference_adds_its_divergence_to_every_trained_token() -> None:
    # d = logp - ref: 0 but for the last token of C, which the reference finds 1.2 times less likely
    items, new = items_and_scores()
    c = items[-1]
    assert c.ref_logprobs is not None
    shifted = (*c.ref_logprobs[:-1], c.ref_logprobs[-1] - log(1.2))
    items[-1] = replace(c, ref_logprobs=shifted)
    new[id(items[-1])] = new[id(c)]
    k3 = 1 / 1.2 - 1 + log(1.2)
    assert k3 == pytest.approx(0.01565, abs=1e-5)
    got = loss_of(items, new, objective(TokenMean(), kl=K3(beta=0.1)))
    assert got == pytest.approx((-0.735 + 0.1 * k3) / 12, rel=1e-5)


def test_a_nan_reward_leaves_the_statistics_and_the_rows() -> None:
    group = scored_group()
    lost = replace(group.trajectories[2], score=Score(value=nan))
    group = replace(group, trajectories=(*group.trajectories[:2], lost, group.trajectories[3]))
    assert group.scored == (0, 1)
    assert LeaveOneOut()(Scored(groups=(group,))).values[0] == (1.0, -1.0, None, None)
    assert {row.trajectory for row in fold(group, index=0)} == {0, 1}
    _, metrics = usable([group])
    assert metrics["episodes/unscored"].total == 1
