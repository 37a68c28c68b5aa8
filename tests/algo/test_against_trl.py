"""Our advantages and losses equal those of TRL's GRPOTrainer on the same tensors.

TRL computes its loss in a method; it is called on a stand-in that holds what the method reads, with
logprobs that are given instead of computed.
"""

from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch

from agentrl.algo.advantages.grpo import GroupNormalised
from agentrl.algo.aggregate import Constant, SequenceMeanTokenMean, TokenMean
from agentrl.algo.kl import K3
from agentrl.algo.losses.ppo_clip import PpoClip
from agentrl.core.protocols import Aggregate
from agentrl.train.objective import Objective
from support.credit import batch, scored, scores

pytestmark = pytest.mark.trl

ROWS, WIDTH, LIMIT = 8, 12, 16
GENERATOR = torch.Generator().manual_seed(11)
OLD = -torch.rand(ROWS, WIDTH, generator=GENERATOR) * 3
NEW = OLD + 0.4 * torch.randn(ROWS, WIDTH, generator=GENERATOR)
REF = OLD + 0.2 * torch.randn(ROWS, WIDTH, generator=GENERATOR)
LENGTHS = torch.tensor([12, 3, 7, 1, 9, 12, 5, 2])
MASK = torch.arange(WIDTH) < LENGTHS[:, None]
REWARDS = [[1.0, 0.0, 0.0, 0.3], [0.2, 1.0, 1.0, 0.7]]


def theirs(
    loss_type: str, advantages_B: torch.Tensor, logp: torch.Tensor, beta: float
) -> torch.Tensor:
    from trl import GRPOTrainer

    trainer = SimpleNamespace(
        _get_per_token_logps_and_entropies=lambda *_, **__: (logp, torch.zeros_like(logp), None),
        aux_loss_enabled=False,
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        importance_sampling_level="token",
        beta=beta,
        epsilon_low=0.2,
        epsilon_high=0.28,
        loss_type=loss_type,
        use_vllm=False,
        model=SimpleNamespace(training=True),
        current_gradient_accumulation_steps=1,
        max_completion_length=LIMIT,
        _entropy_bonus_enabled=False,
        _metrics=defaultdict(lambda: defaultdict(list)),
        args=SimpleNamespace(use_bias_correction_kl=False, delta=None, steps_per_generation=1),
        accelerator=SimpleNamespace(
            num_processes=1, gather=lambda x: x, reduce=lambda x, reduction: x
        ),
    )
    inputs = {
        "prompt_ids": torch.zeros(ROWS, 1, dtype=torch.long),
        "prompt_mask": torch.ones(ROWS, 1, dtype=torch.long),
        "completion_ids": torch.zeros(ROWS, WIDTH, dtype=torch.long),
        "completion_mask": MASK.long(),
        "advantages": advantages_B,
        "old_per_token_logps": OLD,
        "ref_per_token_logps": REF,
        "num_items_in_batch": MASK.sum(),
    }
    loss: torch.Tensor = GRPOTrainer._compute_loss(trainer, None, inputs)  # type: ignore[arg-type]
    return loss


def ours(
    aggregate: Aggregate, advantages_B: torch.Tensor, logp: torch.Tensor, beta: float
) -> torch.Tensor:
    objective = Objective(
        loss=PpoClip(low=0.2, high=0.28),
        aggregate=aggregate,
        kl=K3(beta=beta) if beta else None,
    )
    step = batch(MASK, advantages_B[:, None] * MASK, old_BT=OLD, ref_BT=REF)
    return objective(step, scores(logp))[0]


def advantages(scale: str = "group") -> torch.Tensor:
    out = GroupNormalised(scale=scale)(scored(*REWARDS))  # type: ignore[arg-type]
    return torch.tensor([a for group in out.values for a in group])


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_advantages_equal_trl(scale: str) -> None:
    from trl.trainer.utils import nanstd

    rewards_PG = torch.tensor(REWARDS)
    centred_PG = rewards_PG - rewards_PG.mean(dim=1, keepdim=True)
    std = {
        "group": nanstd(rewards_PG, dim=1, keepdim=True) + 1e-4,
        "batch": nanstd(rewards_PG) + 1e-4,
        "none": torch.ones(()),
    }[scale]
    torch.testing.assert_close(advantages(scale), (centred_PG / std).flatten(), atol=1e-6, rtol=0)


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
    advantages_B = advantages()
    a, b = NEW.clone().requires_grad_(), NEW.clone().requires_grad_()
    mine = ours(aggregate, advantages_B, a, beta)
    reference = theirs(loss_type, advantages_B, b, beta)
    torch.testing.assert_close(mine, reference, atol=1e-6, rtol=0)
    mine.backward()
    reference.backward()
    torch.testing.assert_close(a.grad, b.grad, atol=1e-6, rtol=0)
    assert (torch.as_tensor(a.grad)[MASK] != 0).any()
