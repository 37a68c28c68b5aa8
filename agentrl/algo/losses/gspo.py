"""The clipped surrogate with the ratio of the whole trajectory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Gt, Lt

from agentrl.algo.drift import log_ratio, metrics_of, trajectory_mean, with_slope
from agentrl.core.registry import register
from agentrl.core.tensors import LossOut


@register("loss", "gspo")
@dataclass(frozen=True, kw_only=True)
class SequenceRatio:
    """PPO's clip on `s = exp(mean_t log r_t)`, the mean taken over all tokens of the trajectory, in
    the token form `sg(s) exp(logp - sg(logp))`, so that turns may have advantages of their own
    (GSPO, Zheng et al. 2025, arXiv 2507.18071; the token form is its section 4.3).

    Clips are narrow because a mean of log-ratios hardly moves. LUSPO (arXiv 2602.05261), which
    multiplies a trajectory's loss by its length, is this loss under `aggregate=seq_mean_token_sum`.
    """

    low: Annotated[float, Gt(0), Lt(1)] = 3e-4
    """Lower clip of the trajectory's ratio (0..1)."""
    high: Annotated[float, Gt(0)] = 4e-4
    """Upper clip of the trajectory's ratio (> 0)."""

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
            mean_B = trajectory_mean(log_ratio(logp, old_logp), mask, trajectory_B)
            ratio_B1 = mean_B.exp()[:, None]
            is_low = (ratio_B1 < 1.0 - self.low) & (advantages < 0)
            is_high = (ratio_B1 > 1.0 + self.high) & (advantages > 0)
            found = {
                "clip_low": is_low,
                "clip_high": is_high,
                "ratio": ratio_B1.expand_as(advantages),
            }
            metrics = metrics_of("loss", found, mask)
            clipped = torch.where(is_low, 1.0 - self.low, ratio_B1)
            value = torch.where(is_high, 1.0 + self.high, clipped).mul_(advantages).neg_()
            slope = value.masked_fill(is_low | is_high, 0.0)
        return LossOut(loss_BT=with_slope(value, slope, logp), metrics=metrics)
