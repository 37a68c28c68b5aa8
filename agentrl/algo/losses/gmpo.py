"""The geometric mean of a trajectory's clipped ratios."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Gt

from agentrl.algo.drift import log_ratio, metrics_of, trajectory_mean
from agentrl.core.registry import register
from agentrl.core.tensors import LossOut


@register("loss", "gmpo")
@dataclass(frozen=True, kw_only=True)
class GeometricMean:
    """`-A exp(mean_t c_t)`, `c_t` the log-ratio, clipped on the side where `A` would push it on: at
    most `high` where A > 0, at least `-low` elsewhere (Zhao et al. 2025, arXiv 2507.20673).

    In the token form `sg(exp(mean c)) exp(c_t - sg(c_t))`: the gradient is the paper's where a
    trajectory has one advantage, and turns may have their own.
    """

    low: Annotated[float, Gt(0)] = 0.4
    """Lower clip of the log-ratio (nats, > 0)."""
    high: Annotated[float, Gt(0)] = 0.4
    """Upper clip of the log-ratio (nats, > 0)."""

    def __call__(
        self,
        logp: torch.Tensor,
        old_logp: torch.Tensor,
        advantages: torch.Tensor,
        mask: torch.Tensor,
        *,
        trajectory_B: torch.Tensor,
    ) -> LossOut:
        """Per-token loss `[B,T]`, its clip fractions and the ratio's mean."""
        moved = log_ratio(logp, old_logp)
        bounded = torch.where(
            advantages > 0, moved.clamp(max=self.high), moved.clamp(min=-self.low)
        )
        mean_B = trajectory_mean(bounded, mask, trajectory_B).detach()
        ratio = mean_B.exp()[:, None] * (bounded - bounded.detach()).exp()
        found = {
            "clip_low": ((moved < -self.low) & (advantages < 0)).to(ratio.dtype),
            "clip_high": ((moved > self.high) & (advantages > 0)).to(ratio.dtype),
            "ratio": ratio,
        }
        return LossOut(loss_BT=-advantages * ratio, metrics=metrics_of("loss", found, mask))
