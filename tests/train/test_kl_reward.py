"""KL in the reward: each trajectory pays for its own tokens, before credit is given."""

from dataclasses import replace
from math import log
from typing import cast

import pytest

from agentrl.algo.advantages.rloo import LeaveOneOut
from agentrl.algo.kl import K1, K3
from agentrl.core.errors import DataError
from agentrl.core.types import Fork, Group, Score, Stop, Trajectory, Turn
from agentrl.rollout.fold import fold
from agentrl.rollout.share import Solo
from agentrl.train.kl_reward import scored_step
from agentrl.train.prepare import TrainRow
from support.credit import TASK

FIRST = Turn(prompt_ids=(1,), action_ids=(5, 6), sampler_logprobs=(log(0.6), log(0.5)))
A = Trajectory(
    task=TASK,
    turns=(
        FIRST,
        Turn(prompt_ids=(1, 9), action_ids=(7,), sampler_logprobs=(log(0.3),), row=1),
    ),
    stop=Stop.DONE,
    score=Score(value=1.0, turns=(0.25, 0.75), parts={"env": 1.0}),
)
B = Trajectory(
    task=TASK,
    turns=(
        FIRST,
        Turn(prompt_ids=(1, 5, 6, 3), action_ids=(8,), sampler_logprobs=(log(0.2),)),
    ),
    stop=Stop.DONE,
    score=Score(value=0.0),
    parent=Fork(0, 1),
)
C = Trajectory(task=TASK, turns=(), stop=Stop.MAX_TOKENS, score=Score(value=0.5))
D = Trajectory(task=TASK, turns=(FIRST,), stop=Stop.ERROR)
GROUP = Group(task=TASK, trajectories=(A, B, C, D))
# d = log(sampler / ref): turn 0 of A and B log 1.2 twice, turn 1 of A -log 1.5, of B 0
REF = {5: log(0.5), 6: log(0.5 / 1.2), 7: log(0.45), 8: log(0.2)}


def rows() -> list[TrainRow]:
    return [
        replace(
            TrainRow.blank(row),
            ref_logprobs=tuple(
                REF[token] if m else 0.0 for token, m in zip(row.ids, row.mask, strict=True)
            ),
        )
        for row in fold(GROUP, index=0)
    ]


def values(groups: tuple[Group, ...]) -> list[float | None]:
    return [None if t.score is None else t.score.value for t in groups[0].trajectories]


def test_each_trajectory_pays_for_all_its_tokens_inherited_ones_too() -> None:
    kl = K1(beta=0.1, placement="reward")
    scored, metrics = scored_step([GROUP], rows(), kl=kl, share=Solo())
    a, b = 2 * log(1.2) - log(1.5), 2 * log(1.2)
    assert values(scored.groups) == pytest.approx([1 - 0.1 * a, -0.1 * b, 0.5, None])
    first = scored.groups[0].trajectories[0].score
    assert first is not None
    assert first.turns == pytest.approx((0.25 - 0.2 * log(1.2), 0.75 + 0.1 * log(1.5)))
    assert first.parts == {"env": 1.0, "kl": pytest.approx(-0.1 * a)}
    assert metrics["reward/kl"].mean == pytest.approx((a + b) / 3)
    assert values((GROUP,)) == [1.0, 0.0, 0.5, None], "what is recorded keeps the task's reward"


def test_the_advantage_is_that_of_the_charged_rewards() -> None:
    kl = K1(beta=0.1, placement="reward")
    scored, _ = scored_step([GROUP], rows(), kl=kl, share=Solo())
    r = cast("list[float]", values(scored.groups)[:3])
    *credit, failed = LeaveOneOut()(scored).values[0]
    assert credit == pytest.approx([r[i] - (sum(r) - r[i]) / 2 for i in range(3)])
    assert failed is None


def test_a_kl_in_the_loss_leaves_rewards_alone() -> None:
    for kl in (None, K3()):
        scored, metrics = scored_step([GROUP], rows(), kl=kl, share=Solo())
        assert (scored.groups, scored.ref_logprobs, metrics) == ((GROUP,), None, {})


def test_an_estimator_that_needs_reference_logprobs_gets_them_in_turn_order() -> None:
    scored, _ = scored_step(
        [GROUP], rows(), kl=K3(), share=Solo(), needs=frozenset({"ref_logprobs"})
    )
    assert scored.groups == (GROUP,)
    assert scored.ref_logprobs == [[[REF[5], REF[6], REF[7]], [REF[5], REF[6], REF[8]], [], []]]
    assert scored.entropies is None


def test_an_estimator_that_needs_entropies_gets_them_in_turn_order() -> None:
    items = [
        replace(item, entropies=tuple(0.1 * token for token in item.row.ids)) for item in rows()
    ]
    scored, _ = scored_step([GROUP], items, kl=None, share=Solo(), needs=frozenset({"entropies"}))
    assert scored.entropies == [
        [[0.1 * id for turn in t.turns for id in turn.action_ids] for t in (A, B, C)] + [[]]
    ]
    with pytest.raises(DataError, match="expected rows with entropies: call with_old before"):
        scored_step([GROUP], rows(), kl=None, share=Solo(), needs=frozenset({"entropies"}))


def test_rows_without_reference_logprobs_are_refused() -> None:
    blank = [TrainRow.blank(row) for row in fold(GROUP, index=0)]
    with pytest.raises(DataError, match="expected rows with ref_logprobs"):
        scored_step([GROUP], blank, kl=K1(placement="reward"), share=Solo())
