"""Rejection of trajectories by the geometric mean of their ratios."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Gt, Lt

from agentrl.algo.drift import metrics_of, trajectory_mean
from agentrl.core.registry import register
from agentrl.core.types import Sum


@register("mismatch", "geometric")
@dataclass(frozen=True, kw_only=True)
class GeometricRejection:
    """Leave out trajectories whose `exp(mean(old_logp - sampler_logp))` is outside `low..high`, the
    rest weighs 1 (Liu et al. 2025, "When speed kills stability", geometric form). Unlike the
    product it does not grow with length."""

    low: Annotated[float, Gt(0), Lt(1)] = 0.999
    """Smallest geometric mean ratio that is trained (0..1)."""
    high: Annotated[float, Gt(1)] = 1.001
    """Largest geometric mean ratio that is trained (> 1)."""

    def __call__(
        self,
        old_logp: torch.Tensor,
        sampler_logp: torch.Tensor,
        mask: torch.Tensor,
        *,
        logp: torch.Tensor,
        advantages: torch.Tensor,
        trajectory_B: torch.Tensor,
    ) -> tuple[torch.Tensor, Mapping[str, Sum]]:
        """Weights 0 or 1, and the share of tokens whose trajectory was left out."""
        d = (old_logp - sampler_logp).detach()
        mean_B = trajectory_mean(d, mask, trajectory_B).clamp(-20.0, 20.0).exp()
        is_out_BT = ((mean_B < self.low) | (mean_B > self.high))[:, None].expand_as(d)
        metrics = metrics_of("mismatch", {"rejected": is_out_BT.to(d.dtype)}, mask)
        return torch.ones_like(d).masked_fill(is_out_BT & mask, 0.0), metrics
