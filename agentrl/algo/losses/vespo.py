"""REINFORCE with a smooth weight of the whole trajectory's ratio."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge, Gt

from agentrl.algo.drift import log_ratio, metrics_of, trajectory_sum
from agentrl.core.registry import register
from agentrl.core.tensors import LossOut

LEAST, MOST = math.log(1e-8), 20.0
"""Bounds of a trajectory's log-ratio, as released."""


@register("loss", "vespo")
@dataclass(frozen=True, kw_only=True)
class VariationalSequence:
    """`-sg(phi(w)) A logp`, `phi(w) = exp(l + k ln w - l w)`, `w` the product of the trajectory's
    ratios (Shen et al. 2026, VESPO, arXiv 2602.10693): 1 on policy, small for large `w`.

    The product may hold the sampler's mismatch too: with `optim.old=sampler` the old logprobs are
    the sampler's. A correction in the slot `mismatch` multiplies the loss beside it.
    """

    k_positive: Annotated[float, Ge(0)] = 2.0
    """Exponent where A >= 0."""
    decay_positive: Annotated[float, Gt(0)] = 3.0
    """`l` where A >= 0 (> 0)."""
    k_negative: Annotated[float, Ge(0)] = 3.0
    """Exponent where A < 0."""
    decay_negative: Annotated[float, Gt(0)] = 2.0
    """`l` where A < 0 (> 0)."""

    def __call__(
        self,
        logp: torch.Tensor,
        old_logp: torch.Tensor,
        advantages: torch.Tensor,
        mask: torch.Tensor,
        *,
        trajectory_B: torch.Tensor,
    ) -> LossOut:
        """Per-token loss `[B,T]` and the mean weight."""
        with torch.no_grad():
            moved = log_ratio(logp, old_logp)
            log_w = trajectory_sum(moved, mask, trajectory_B).clamp(LEAST, MOST)[:, None]
            del moved
            good, bad = (
                (decay + k * log_w - decay * log_w.exp()).exp()
                for k, decay in (
                    (self.k_positive, self.decay_positive),
                    (self.k_negative, self.decay_negative),
                )
            )
            phi = torch.where(advantages >= 0, good, bad)
            found = {"phi": phi, "ratio": log_w.exp().expand_as(phi)}
            metrics = metrics_of("loss", found, mask)
            weight = phi.mul_(advantages).neg_()
        return LossOut(loss_BT=weight * logp, metrics=metrics)
