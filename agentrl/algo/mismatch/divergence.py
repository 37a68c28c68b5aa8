"""Rejection of trajectories by an estimate of their divergence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Gt

from agentrl.algo.drift import k3_of, log_ratio, metrics_of, trajectory_mean
from agentrl.core.registry import register
from agentrl.core.types import Sum


@register("mismatch", "divergence")
@dataclass(frozen=True, kw_only=True)
class DivergenceRejection:
    """Leave out trajectories whose mean estimate of KL(sampler || old) exceeds `limit`, the rest
    weighs 1. With `d = old_logp - sampler_logp`: k2 is `d^2 / 2`, k3 is `exp(d) - 1 - d` (Schulman
    2020, "Approximating KL divergence")."""

    estimate: Literal["k2", "k3"] = "k3"
    """Which estimate is averaged over the trajectory's tokens."""
    limit: Annotated[float, Gt(0)] = 0.01
    """Largest mean that is trained (> 0, nats per token; for k3 1e-3 to 1e-2, for k2 2 to 2.5)."""

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
        d = log_ratio(old_logp, sampler_logp).detach()
        each_BT = 0.5 * d.square() if self.estimate == "k2" else k3_of(-d)
        mean_B = trajectory_mean(each_BT, mask, trajectory_B)
        is_out_BT = (mean_B > self.limit)[:, None].expand_as(d)
        metrics = metrics_of("mismatch", {"rejected": is_out_BT.to(d.dtype)}, mask)
        return torch.ones_like(d).masked_fill(is_out_BT & mask, 0.0), metrics
