"""The clipped surrogate of PPO, with its lower and upper clip apart."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Gt, Lt

from agentrl.algo.drift import is_within, log_ratio, metrics_of, with_slope
from agentrl.core.errors import ConfigError
from agentrl.core.registry import register
from agentrl.core.tensors import LossOut


@register("loss", "ppo_clip")
@dataclass(frozen=True, kw_only=True)
class PpoClip:
    """`max(-A r, -A clip(r, 1 - low, 1 + high))`, `r = exp(logp - old_logp)` (Schulman et al. 2017,
    arXiv 1707.06347, eq. 7).

    `high > low` is DAPO's clip-higher (Yu et al. 2025, arXiv 2503.14476, eq. 10). Two bounds of the
    loss where A < 0, which is otherwise as large as the ratio: `dual` takes `min(loss, -A dual)`
    (Ye et al. 2020, arXiv 1912.09729, eq. 5); `delta` clamps r at delta before the max
    (INTELLECT-2, arXiv 2505.07291). Where both are above `1 + high` they are the same function.
    """

    low: Annotated[float, Gt(0), Lt(1)] = 0.2
    """Lower clip of the ratio (0..1)."""
    high: Annotated[float, Gt(0)] = 0.2
    """Upper clip of the ratio (> 0)."""
    dual: Annotated[float, Gt(1)] | None = None
    """Largest ratio that counts where A < 0 (> 1), or none."""
    delta: Annotated[float, Gt(1)] | None = None
    """Largest ratio of the unclipped term (> 1 + high), or none."""

    def __post_init__(self) -> None:
        if self.delta is not None and self.delta <= 1.0 + self.high:
            raise ConfigError(
                f"delta: must be above 1 + high = {1.0 + self.high:g}, or it would clip what high "
                f"allows (got {self.delta})"
            )
        if self.delta is not None and self.dual is not None:
            raise ConfigError("delta: bounds the same loss as dual; set one of them")

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
            ratio = log_ratio(logp, old_logp).exp_()
            is_low = (ratio < 1.0 - self.low) & (advantages < 0)
            is_high = (ratio > 1.0 + self.high) & (advantages > 0)
            found = {"clip_low": is_low, "clip_high": is_high, "ratio": ratio}
            metrics = metrics_of("loss", found, mask)
            is_flat = is_low | is_high | ~is_within(logp, old_logp)
            counted = torch.where(is_low, 1.0 - self.low, ratio)
            counted = torch.where(is_high, 1.0 + self.high, counted)
            most = min(self.delta or math.inf, self.dual or math.inf)
            if most < math.inf:
                is_beyond = (ratio > most) & (advantages < 0)
                is_flat |= is_beyond
                counted = torch.where(is_beyond, most, counted)
            del ratio, found
            value = counted.mul_(advantages).neg_()
            slope = value.masked_fill(is_flat, 0.0)
        return LossOut(loss_BT=with_slope(value, slope, logp), metrics=metrics)
