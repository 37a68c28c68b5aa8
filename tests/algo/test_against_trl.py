"""Our advantages and losses equal those of TRL's trainers on the same tensors.

TRL's own code runs, on a real trainer (`support/peers.py`); only the model's forward and the tokens
are given. Where TRL's form differs from ours on purpose, the test says so and pins the difference.
What TRL has no form of (turn-level credit, several rows of a trajectory) has its numbers elsewhere.
"""

from typing import Any

import pytest
import torch

from agentrl.algo.advantages.grpo import GroupNormalised
from agentrl.algo.advantages.rloo import LeaveOneOut
from agentrl.algo.aggregate import Constant, SequenceMeanTokenMean, TokenMean
from agentrl.algo.kl import K3
from agentrl.algo.losses.ppo_clip import PpoClip
from agentrl.algo.mismatch.tis import TruncatedImportance
from agentrl.core.protocols import Advantage, Aggregate, Kl, Loss, Mismatch
from agentrl.core.tensors import Scores
from agentrl.train.objective import Objective
from support import peers
from support.credit import batch, scored

pytestmark = pytest.mark.trl

ROWS, WIDTH, LIMIT = 8, 12, 16


def given(rewards_PG: list[list[float | None]] | None = None, seed: int = 11) -> peers.Given:
    """Eight ragged rows with holes (what an env says between two turns)."""
    generator = torch.Generator().manual_seed(seed)

    def noise(scale: float) -> torch.Tensor:
        return scale * torch.randn(ROWS, WIDTH, generator=generator, dtype=torch.float64)

    old_BT = -torch.rand(ROWS, WIDTH, generator=generator, dtype=torch.float64) * 3
    lengths_B = torch.tensor([12, 3, 7, 1, 9, 12, 5, 2])
    mask_BT = torch.arange(WIDTH) < lengths_B[:, None]
    mask_BT[0, 4:7] = mask_BT[2, 2:4] = mask_BT[5, 9] = False
    return peers.Given(
        mask_BT=mask_BT,
        old_BT=old_BT,
        new_BT=old_BT + noise(0.4),
        ref_BT=old_BT + noise(0.2),
        # TRL holds these in float32
        sampler_BT=(old_BT + noise(0.5)).float().double(),
        entropy_BT=torch.rand(ROWS, WIDTH, generator=generator, dtype=torch.float64) * 2,
        rewards_PG=rewards_PG or [[1.0, 0.0, 0.0, 0.25], [0.125, 1.0, 1.0, 0.75]],
    )


def credit(advantage: Advantage, given: peers.Given) -> torch.Tensor:
    """`[B]` advantages by our estimator; what is left out counts 0, as with TRL."""
    out = advantage(scored(*given.rewards_PG))
    return torch.tensor(
        [0.0 if a is None else a for group in out.values for a in group], dtype=torch.float64
    )


def ours(
    given: peers.Given,
    advantages_B: torch.Tensor,
    logp_BT: torch.Tensor,
    *,
    loss: Loss | None = None,
    aggregate: Aggregate | None = None,
    kl: Kl | None = None,
    mismatch: Mismatch | None = None,
) -> torch.Tensor:
    objective = Objective(
        loss=loss or PpoClip(low=0.2, high=0.28),
        aggregate=aggregate or TokenMean(),
        kl=kl,
        mismatch=mismatch,
    )
    step = batch(
        given.mask_BT,
        advantages_B[:, None] * given.mask_BT,
        old_BT=given.old_BT,
        ref_BT=given.ref_BT,
        sampler_BT=given.sampler_BT,
    )
    return objective(step, Scores(logp_BT=logp_BT, entropy_BT=given.entropy_BT))[0]


def check(mine: torch.Tensor, reference: torch.Tensor) -> None:
    torch.testing.assert_close(mine, reference, rtol=1e-9, atol=1e-12)


def both(
    given: peers.Given,
    *,
    beta: float = 0.0,
    is_vllm: bool = False,
    trl: dict[str, Any] | None = None,
    **parts: object,
) -> None:
    """Value and gradient of our loss, made of `parts`, equal TRL's under the settings `trl`."""
    settings: dict[str, Any] = {
        "epsilon": 0.2,
        "epsilon_high": 0.28,
        "max_completion_length": LIMIT,
    }
    with peers.trainer(given, beta=beta, is_vllm=is_vllm, **settings | (trl or {})) as peer:
        inputs = peers.experience(peer, given)
        # TRL's advantages are float32; the loss is compared on the same numbers.
        advantages_B = inputs["advantages"] = inputs["advantages"].double()
        theirs_BT = given.new_BT.clone().requires_grad_()
        reference = peers.loss(peer, inputs, theirs_BT, given.entropy_BT)
    mine_BT = given.new_BT.clone().requires_grad_()
    mine = ours(given, advantages_B, mine_BT, **parts)  # type: ignore[arg-type]
    check(mine, reference)
    mine.backward()
    reference.backward()
    assert mine_BT.grad is not None
    assert theirs_BT.grad is not None
    check(mine_BT.grad, theirs_BT.grad)
    assert (mine_BT.grad[given.mask_BT] != 0).any()
    assert (mine_BT.grad[~given.mask_BT] == 0).all()


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


@pytest.mark.parametrize("beta", [0.0, 0.05])
@pytest.mark.parametrize(
    ("aggregate", "loss_type"),
    [
        (SequenceMeanTokenMean(), "grpo"),
        (TokenMean(), "dapo"),
        (TokenMean(), "bnpo"),
        (Constant(length=LIMIT), "dr_grpo"),
    ],
)
def test_loss_and_gradient_equal_trl(aggregate: Aggregate, loss_type: str, beta: float) -> None:
    both(
        given(),
        beta=beta,
        trl={"loss_type": loss_type, "use_bias_correction_kl": False},
        aggregate=aggregate,
        kl=K3(beta=beta) if beta else None,
    )


@pytest.mark.parametrize(("low", "high"), [(0.2, 0.2), (0.1, 0.4), (0.02, 0.03)])
def test_clips_equal_trl(low: float, high: float) -> None:
    both(given(), trl={"epsilon": low, "epsilon_high": high}, loss=PpoClip(low=low, high=high))


def test_the_dual_clip_equals_trl_s_two_sided_clip() -> None:
    """TRL caps the ratio at `delta` before the maximum, ours bounds the loss where A < 0: one
    function, as long as `delta > 1 + high`."""
    rows = given()
    ratio_BT = (rows.new_BT - rows.old_BT).exp()
    assert (ratio_BT > 1.4).any()
    both(rows, trl={"delta": 1.4}, loss=PpoClip(low=0.2, high=0.28, dual=1.4))


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


@pytest.mark.parametrize("loss_type", ["dapo", "grpo", "dr_grpo"])
def test_micro_batches_add_up_to_trl_s_accumulated_loss(loss_type: str) -> None:
    """TRL divides by the tokens of the accumulation window (`dapo`) or by the number of equal
    micro-batches; our weights hold the step's counts, so both are the loss of the whole step."""
    rows = given()
    settings: dict[str, Any] = {
        "per_device_train_batch_size": ROWS // 2,
        "gradient_accumulation_steps": 2,
        "steps_per_generation": 2,
        "loss_type": loss_type,
        "max_completion_length": LIMIT,
    }
    with peers.trainer(rows, **settings) as peer:
        whole = peers.experience(peer, rows)
        total = torch.zeros((), dtype=torch.float64)
        for part in (slice(0, ROWS // 2), slice(ROWS // 2, ROWS)):
            inputs = {k: v if v.dim() == 0 else v[part] for k, v in whole.items()}
            inputs["advantages"] = inputs["advantages"].double()
            total += peers.loss(peer, inputs, rows.new_BT[part], rows.entropy_BT[part])
    aggregate = {
        "dapo": TokenMean(),
        "grpo": SequenceMeanTokenMean(),
        "dr_grpo": Constant(length=LIMIT),
    }[loss_type]
    advantages_B = whole["advantages"].double()
    check(
        ours(
            rows,
            advantages_B,
            rows.new_BT,
            loss=PpoClip(low=0.2, high=0.2),
            aggregate=aggregate,  # type: ignore[arg-type]
        ),
        total,
    )


# --- sampler mismatch -----------------------------------------------------------------------------


def test_token_truncation_equals_trl() -> None:
    rows = given()
    capped_BT = (rows.old_BT - rows.sampler_BT).exp() > 1.3
    assert capped_BT[rows.mask_BT].any()
    both(
        rows,
        is_vllm=True,
        trl={
            "vllm_importance_sampling_mode": "token_truncate",
            "vllm_importance_sampling_clip_max": 1.3,
        },
        mismatch=TruncatedImportance(cap=1.3),
    )
