"""The same rows through our objective and through TRL's own trainers."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch

from agentrl.algo.aggregate import (
    TokenMean,
)
from agentrl.algo.losses.ppo_clip import PpoClip
from agentrl.core.protocols import Advantage, Aggregate, Entropy, Kl, Loss, Mismatch
from agentrl.core.tensors import Scores
from agentrl.train.objective import Objective
from support import peers
from support.credit import batch, scored

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
        # TRL holds the sampler's logprobs, and takes the quantile of entropies, in float32
        sampler_BT=(old_BT + noise(0.5)).float().double(),
        entropy_BT=(torch.rand(ROWS, WIDTH, generator=generator) * 2).double(),
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
    entropy: Entropy | None = None,
    entropy_BT: torch.Tensor | None = None,
) -> torch.Tensor:
    """Our loss of a whole step; advantages are `[B]` or `[B,T]`."""
    objective = Objective(
        loss=loss or PpoClip(low=0.2, high=0.28),
        aggregate=aggregate or TokenMean(),
        kl=kl,
        mismatch=mismatch,
        entropy=entropy,
    )
    advantages_BT = advantages_B[:, None] if advantages_B.dim() == 1 else advantages_B
    step = batch(
        given.mask_BT,
        advantages_BT * given.mask_BT,
        old_BT=given.old_BT,
        ref_BT=given.ref_BT,
        sampler_BT=given.sampler_BT,
    )
    entropies_BT = given.entropy_BT if entropy_BT is None else entropy_BT
    return objective(step, Scores(logp_BT=logp_BT, entropy_BT=entropies_BT))[0]


def check(mine: torch.Tensor, reference: torch.Tensor) -> None:
    torch.testing.assert_close(mine, reference, rtol=1e-9, atol=1e-12)


def both(
    given: peers.Given,
    *,
    beta: float = 0.0,
    is_vllm: bool = False,
    trl: dict[str, Any] | None = None,
    trainer: Callable[..., AbstractContextManager[Any]] = peers.trainer,
    **parts: object,
) -> None:
    """Value and gradient of our loss, made of `parts`, equal TRL's under the settings `trl`."""
    settings: dict[str, Any] = {
        "epsilon": 0.2,
        "epsilon_high": 0.28,
        "max_completion_length": LIMIT,
    }
    with trainer(given, beta=beta, is_vllm=is_vllm, **settings | (trl or {})) as peer:
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
