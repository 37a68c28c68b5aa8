"""Our advantages and losses equal those of TRL's trainers on the same tensors.

TRL's own code runs, on a real trainer (`support/peers.py`); only the model's forward and the tokens
are given. Where TRL's form differs from ours on purpose, the test says so and pins the difference.
What TRL has no form of (turn-level credit, several rows of a trajectory) has its numbers elsewhere.
"""

from dataclasses import replace
from typing import Any

import pytest
import torch

from agentrl.algo.advantages.grpo import GroupNormalised
from agentrl.algo.advantages.rloo import LeaveOneOut
from agentrl.algo.aggregate import (
    Constant,
    LocalTokenMean,
    SequenceMeanTokenMean,
    SequenceMeanTokenSum,
    TokenMean,
)
from agentrl.algo.entropy import Adaptive, Bonus
from agentrl.algo.kl import K1, K3
from agentrl.algo.losses.ppo_clip import PpoClip
from agentrl.algo.mismatch.mis import MaskedImportance
from agentrl.algo.mismatch.off_policy import OffPolicyMask
from agentrl.algo.mismatch.product import Product
from agentrl.algo.mismatch.sequence import SequenceImportance
from agentrl.algo.mismatch.tis import TruncatedImportance
from agentrl.algo.spread import TokenAdvantages
from agentrl.core.protocols import Aggregate, Mismatch
from agentrl.core.tensors import Scores
from agentrl.core.types import Group, Score, Stop, Trajectory, Turn
from agentrl.rollout.fold import fold
from agentrl.rollout.share import Solo
from agentrl.train.high_entropy import high_entropy_only
from agentrl.train.kl_reward import scored_step
from agentrl.train.objective import Objective
from agentrl.train.prepare import TrainRow
from support import peers
from support.against_trl import LIMIT, ROWS, WIDTH, both, check, credit, given, ours
from support.credit import TASK, batch
from support.models import row as row_of

pytestmark = pytest.mark.trl

# --- advantages -----------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_grpo_advantages_equal_trl(scale: str) -> None:
    rows = given()
    with peers.trainer(rows, scale_rewards=scale) as peer:
        theirs_B = peers.experience(peer, rows)["advantages"].double()
    mine_B = credit(GroupNormalised(scale=scale), rows)  # type: ignore[arg-type]
    torch.testing.assert_close(mine_B, theirs_B, rtol=1e-6, atol=1e-6)
    assert (theirs_B != 0).all()


@pytest.mark.parametrize("scale", ["group", "none"])
def test_unscorable_siblings_and_equal_rewards_give_trl_s_advantages(scale: str) -> None:
    rows = given([[1.0, None, 0.0, 0.5], [0.25, 0.25, 0.25, 0.25]])
    with peers.trainer(rows, scale_rewards=scale) as peer:
        theirs_B = peers.experience(peer, rows)["advantages"].double()
    mine_B = credit(GroupNormalised(scale=scale), rows)  # type: ignore[arg-type]
    torch.testing.assert_close(mine_B, theirs_B, rtol=1e-6, atol=1e-6)
    assert theirs_B.count_nonzero() == 2


@pytest.mark.parametrize(
    "rewards_PG",
    [
        [[1.0, 0.0, 0.0, 0.25], [0.125, 1.0, 1.0, 0.75]],
        [[1.0, None, 0.0, 0.5], [0.25, 0.25, 0.25, 0.25]],
    ],
)
def test_rloo_advantages_equal_trl(rewards_PG: list[list[float | None]]) -> None:
    rows = given(rewards_PG)
    with peers.rloo_trainer(rows) as peer:
        theirs_B = peers.experience(peer, rows)["advantages"].double()
    torch.testing.assert_close(credit(LeaveOneOut(), rows), theirs_B, rtol=1e-6, atol=1e-6)
    assert (theirs_B != 0).any()


# --- losses and length normalisation --------------------------------------------------------------


@pytest.mark.parametrize(
    ("aggregate", "loss_type"),
    [
        (SequenceMeanTokenMean(), "grpo"),
        (TokenMean(), "dapo"),
        (TokenMean(), "bnpo"),
        (LocalTokenMean(), "bnpo"),
        (SequenceMeanTokenSum(), "luspo"),
        (Constant(length=LIMIT), "dr_grpo"),
    ],
)
@pytest.mark.parametrize("beta", [0.0, 0.05])
def test_loss_and_gradient_equal_trl(aggregate: Aggregate, loss_type: str, beta: float) -> None:
    both(
        given(),
        beta=beta,
        trl={"loss_type": loss_type, "use_bias_correction_kl": False},
        aggregate=aggregate,
        kl=K3(beta=beta) if beta else None,
    )


def test_the_kl_of_older_tokens_equals_trl_s_bias_correction() -> None:
    """TRL 1.16 corrects by default, ours does if asked: with one update per batch the ratio is 1,
    and its gradient is then the only difference. Beyond a log-ratio of 20 or a divergence of 10
    ours is clamped and TRL's is not."""
    both(
        given(),
        beta=0.05,
        trl={"use_bias_correction_kl": True},
        kl=K3(beta=0.05, corrected=True),
    )


@pytest.mark.parametrize(("low", "high"), [(0.2, 0.2), (0.1, 0.4), (0.02, 0.03)])
def test_clips_equal_trl(low: float, high: float) -> None:
    both(given(), trl={"epsilon": low, "epsilon_high": high}, loss=PpoClip(low=low, high=high))


@pytest.mark.parametrize(
    "loss", [PpoClip(low=0.2, high=0.28, dual=1.4), PpoClip(low=0.2, high=0.28, delta=1.4)]
)
def test_the_two_sided_clip_equals_trl_s(loss: PpoClip) -> None:
    """TRL and `delta` cap the ratio before the maximum, `dual` bounds the loss where A < 0: one
    function above `1 + high`, below which ours refuses `delta` and TRL does not."""
    rows = given()
    ratio_BT = (rows.new_BT - rows.old_BT).exp()
    assert (ratio_BT > 1.4).any()
    both(rows, trl={"delta": 1.4}, loss=loss)


def test_a_row_without_a_trained_token_counts_with_trl_and_not_with_us() -> None:
    """TRL's `grpo` averages over all rows. Ours leaves out the empty ones, because a masked
    trajectory must not shrink the step of the others."""
    rows = given()
    rows.mask_BT[3] = False
    with peers.trainer(rows, loss_type="grpo", epsilon=0.2, epsilon_high=0.28) as peer:
        inputs = peers.experience(peer, rows)
        advantages_B = inputs["advantages"] = inputs["advantages"].double()
        reference = peers.loss(peer, inputs, rows.new_BT, rows.entropy_BT)
    mine = ours(rows, advantages_B, rows.new_BT, aggregate=SequenceMeanTokenMean())
    check(mine * (ROWS - 1), reference * ROWS)


@pytest.mark.parametrize(
    ("aggregate", "loss_type"),
    [
        (TokenMean(), "dapo"),
        (LocalTokenMean(), "bnpo"),
        (SequenceMeanTokenMean(), "grpo"),
        (SequenceMeanTokenSum(), "luspo"),
        (Constant(length=LIMIT), "dr_grpo"),
    ],
)
def test_micro_batches_add_up_to_trl_s_accumulated_loss(
    aggregate: Aggregate, loss_type: str
) -> None:
    """TRL divides by the tokens of the accumulation window (`dapo`) or by the number of equal
    micro-batches; our weights hold the step's counts. `local_token_mean` alone depends on the cut,
    in both."""
    rows = given()
    settings: dict[str, Any] = {
        "per_device_train_batch_size": ROWS // 2,
        "gradient_accumulation_steps": 2,
        "steps_per_generation": 2,
        "loss_type": loss_type,
        "max_completion_length": LIMIT,
    }
    objective = Objective(loss=PpoClip(low=0.2, high=0.2), aggregate=aggregate)
    reference = mine = torch.zeros((), dtype=torch.float64)
    with peers.trainer(rows, **settings) as peer:
        whole = peers.experience(peer, rows)
        whole["advantages"] = whole["advantages"].double()
        for part in (slice(0, ROWS // 2), slice(ROWS // 2, ROWS)):
            inputs = {k: v if v.dim() == 0 else v[part] for k, v in whole.items()}
            logp_BT, entropy_BT = rows.new_BT[part], rows.entropy_BT[part]
            reference = reference + peers.loss(peer, inputs, logp_BT, entropy_BT)
            mask_BT = rows.mask_BT[part]
            micro = replace(
                batch(mask_BT, inputs["advantages"][:, None] * mask_BT, old_BT=rows.old_BT[part]),
                n_tokens=int(rows.mask_BT.sum()),
                n_trajectories=ROWS,
                n_batches=2,
            )
            mine = mine + objective(micro, Scores(logp_BT=logp_BT, entropy_BT=entropy_BT))[0]
    check(mine, reference)


# --- sampler mismatch -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "low", "high", "mismatch"),
    [
        ("token_truncate", None, 1.3, TruncatedImportance(cap=1.3)),
        ("token_mask", None, 1.3, MaskedImportance(cap=1.3)),
        ("token_mask", 0.8, 1.3, MaskedImportance(cap=1.3, floor=0.8)),
        ("sequence_truncate", None, 1.5, SequenceImportance(mode="truncate", cap=1.5)),
        ("sequence_truncate", 0.5, 1.5, SequenceImportance(mode="truncate", cap=1.5, floor=0.5)),
        ("sequence_mask", None, 1.5, SequenceImportance(mode="mask", cap=1.5)),
        ("sequence_mask", 0.5, 1.5, SequenceImportance(mode="mask", cap=1.5, floor=0.5)),
    ],
)
@pytest.mark.parametrize("beta", [0.0, 0.05])
def test_importance_weights_of_another_engine_equal_trl_s(
    mode: str, low: float | None, high: float, mismatch: Mismatch, beta: float
) -> None:
    """TRL weighs only what vLLM sampled, ours whatever engine did; both leave the KL as it is."""
    rows = given()
    both(
        rows,
        beta=beta,
        is_vllm=True,
        trl={
            "vllm_importance_sampling_mode": mode,
            "vllm_importance_sampling_clip_min": low,
            "vllm_importance_sampling_clip_max": high,
            "use_bias_correction_kl": False,
        },
        mismatch=mismatch,
        kl=K3(beta=beta) if beta else None,
    )
    weights, _ = mismatch(
        rows.old_BT,
        rows.sampler_BT,
        rows.mask_BT,
        logp=rows.new_BT,
        advantages=torch.ones_like(rows.old_BT),
        trajectory_B=torch.arange(ROWS),
    )
    q_BT = (rows.old_BT - rows.sampler_BT).exp()
    if mode.startswith("sequence"):
        q_BT = (q_BT.log() * rows.mask_BT).sum(-1, keepdim=True).exp().expand_as(q_BT)
    assert (weights != q_BT)[rows.mask_BT].any()  # some are out of bounds
    assert (weights == q_BT)[rows.mask_BT].any() or torch.isclose(weights, q_BT).any()


@pytest.mark.parametrize("is_vllm", [False, True])
def test_the_off_policy_mask_equals_trl(is_vllm: bool) -> None:
    rows, delta = given(), 0.05
    far_B = ((rows.sampler_BT - rows.new_BT) * rows.mask_BT).sum(-1) > delta * rows.mask_BT.sum(-1)
    assert 0 < int(far_B.sum()) < ROWS
    off = OffPolicyMask(delta=delta)
    both(
        rows,
        is_vllm=is_vllm,
        trl={
            "off_policy_mask_threshold": delta,
            "vllm_importance_sampling_mode": "token_truncate",
            "vllm_importance_sampling_clip_max": 1.3,
        },
        mismatch=Product(parts=(off, TruncatedImportance(cap=1.3))) if is_vllm else off,
    )


# --- entropy --------------------------------------------------------------------------------------


def test_the_entropy_bonus_equals_trl_s() -> None:
    rows = given()
    with peers.trainer(rows, entropy_coef=0.1, epsilon=0.2, epsilon_high=0.28) as peer:
        inputs = peers.experience(peer, rows)
        advantages_B = inputs["advantages"] = inputs["advantages"].double()
        theirs_BT = rows.entropy_BT.clone().requires_grad_()
        reference = peers.loss(peer, inputs, rows.new_BT, theirs_BT)
    mine_BT = rows.entropy_BT.clone().requires_grad_()
    mine = ours(rows, advantages_B, rows.new_BT, entropy=Bonus(coef=0.1), entropy_BT=mine_BT)
    check(mine, reference)
    mine.backward()
    reference.backward()
    assert mine_BT.grad is not None
    assert theirs_BT.grad is not None
    check(mine_BT.grad, theirs_BT.grad)
    assert (mine_BT.grad[rows.mask_BT] < 0).all()


def test_the_adaptive_entropy_bonus_moves_as_trl_s() -> None:
    """Seven steps of falling and rising entropy; the coefficient of a step comes from the one
    before it."""
    rows = given()
    adaptive = Adaptive(target=0.9, start=0.02, delta=0.01, high=0.035)
    settings: dict[str, Any] = {
        "use_adaptive_entropy": True,
        "entropy_coef": 0.02,
        "entropy_target": 0.9,
        "entropy_coef_delta": 0.01,
        "entropy_coef_max": 0.035,
    }
    applied = []
    with peers.trainer(rows, epsilon=0.2, epsilon_high=0.28, **settings) as peer:
        inputs = peers.experience(peer, rows)
        advantages_B = inputs["advantages"] = inputs["advantages"].double()
        for scale in (1.2, 0.5, 0.4, 0.3, 1.5, 1.5, 0.5):
            entropy_BT = rows.entropy_BT * scale
            reference = peers.loss(peer, inputs, rows.new_BT, entropy_BT)
            mine = ours(rows, advantages_B, rows.new_BT, entropy=adaptive, entropy_BT=entropy_BT)
            check(mine, reference)
            applied.append(adaptive.coef)
            adaptive.observe(float(entropy_BT[rows.mask_BT].mean()))
    assert applied == pytest.approx([0, 0, 0.02, 0.03, 0.035, 0, 0])


@pytest.mark.parametrize("top", [0.2, 0.5])
def test_the_high_entropy_mask_equals_trl_s(top: float) -> None:
    """Both take the `1 - top` quantile over the trained tokens of the step and leave the rest in
    the counts. An entropy bonus would differ: TRL's acts on the chosen tokens, ours on all."""
    rows = given()
    settings: dict[str, Any] = {"top_entropy_quantile": top, "epsilon": 0.2, "epsilon_high": 0.28}
    with peers.trainer(rows, **settings) as peer:
        inputs = peers.experience(peer, rows)
        advantages_B = inputs["advantages"] = inputs["advantages"].double()
        reference = peers.loss(peer, inputs, rows.new_BT, rows.entropy_BT)
    items = [
        TrainRow(
            row=row_of([0] * (WIDTH + 1), [False, *mask]),
            advantages=TokenAdvantages((0.0, *(a if m else 0.0 for m in mask)), (False, *mask)),
            entropies=(0.0, *entropies),
        )
        for a, mask, entropies in zip(
            advantages_B.tolist(), rows.mask_BT.tolist(), rows.entropy_BT.tolist(), strict=True
        )
    ]
    chosen, _ = high_entropy_only(items, top, Solo())
    values_BT = torch.tensor([item.advantages.values[1:] for item in chosen], dtype=torch.float64)
    assert 0 < int((values_BT != 0).sum()) < int(rows.mask_BT.sum())
    check(ours(rows, values_BT, rows.new_BT), reference)


# --- KL in the reward -----------------------------------------------------------------------------


def test_rloo_with_the_kl_in_the_reward_equals_trl() -> None:
    """TRL's RLOO has no mask of an env's words, so these rows have none."""
    whole = torch.arange(WIDTH) < torch.tensor([12, 3, 7, 1, 9, 12, 5, 2])[:, None]
    rows, beta = replace(given(), mask_BT=whole), 0.05
    with peers.rloo_trainer(rows, beta=beta) as peer:
        theirs_B = peers.experience(peer, rows)["advantages"].double()
    groups = []
    ref: dict[tuple[int, int], list[float]] = {}
    for g, rewards_G in enumerate(rows.rewards_PG):
        siblings = []
        for i, reward in enumerate(rewards_G):
            at = g * len(rewards_G) + i
            length = int(whole[at].sum())
            turn = Turn(
                prompt_ids=peers.PROMPT,
                action_ids=tuple(range(length)),
                sampler_logprobs=tuple(rows.old_BT[at, :length].tolist()),
            )
            ref[g, i] = [0.0] * len(peers.PROMPT) + rows.ref_BT[at, :length].tolist()
            assert reward is not None
            siblings.append(
                Trajectory(task=TASK, turns=(turn,), stop=Stop.DONE, score=Score(value=reward))
            )
        groups.append(Group(task=TASK, trajectories=tuple(siblings)))
    items = [
        TrainRow(
            row=row,
            advantages=TokenAdvantages((0.0,) * len(row.ids), row.mask),
            ref_logprobs=tuple(ref[row.group, row.trajectory]),
        )
        for g, group in enumerate(groups)
        for row in fold(group, index=g)
    ]
    step, _ = scored_step(groups, items, kl=K1(beta=beta, placement="reward"), share=Solo())
    mine = [a for group in LeaveOneOut()(step).values for a in group]
    torch.testing.assert_close(
        torch.tensor(mine, dtype=torch.float64), theirs_B, rtol=1e-5, atol=1e-6
    )
    plain = credit(LeaveOneOut(), rows)
    assert not torch.allclose(plain, theirs_B, atol=1e-3)
