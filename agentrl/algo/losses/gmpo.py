"""The geometric mean of a trajectory's clipped ratios."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Gt

from agentrl.algo.drift import is_within, log_ratio, metrics_of, trajectory_mean, with_slope
from agentrl.core.registry import register
from agentrl.core.tensors import LossOut


@register("loss", "gmpo")
@dataclass(frozen=True, kw_only=True)
class GeometricMean:
    """`-A exp(mean_t c_t)`, `c_t` the log-ratio, clipped on the side where `A` would push it on: at
    most `high` where A > 0, at least `-low` elsewhere (Zhao et al. 2025, arXiv 2507.20673).

    In the token form `sg(exp(mean c)) exp(c_t - sg(c_t))` the gradient is the paper's where a
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
        with torch.no_grad():
            moved = log_ratio(logp, old_logp)
            is_low = (moved < -self.low) & (advantages <= 0)
            is_high = (moved > self.high) & (advantages > 0)
            bounded = moved.masked_fill_(is_low, -self.low).masked_fill_(is_high, self.high)
            ratio_B1 = trajectory_mean(bounded, mask, trajectory_B).exp()[:, None]
            found = {
                "clip_low": is_low & (advantages < 0),
                "clip_high": is_high,
                "ratio": ratio_B1.expand_as(moved),
            }
            metrics = metrics_of("loss", found, mask)
            value = torch.mul(advantages, ratio_B1, out=bounded).neg_()
            slope = value.masked_fill(is_low | is_high | ~is_within(logp, old_logp), 0.0)
        return LossOut(loss_BT=with_slope(value, slope, logp), metrics=metrics)
