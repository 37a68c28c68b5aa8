"""Truncated importance sampling, token by token."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Gt

from agentrl.algo.drift import log_ratio, metrics_of
from agentrl.core.registry import register
from agentrl.core.types import Sum


@register("mismatch", "tis")
@dataclass(frozen=True, kw_only=True)
class TruncatedImportance:
    """Per-token `min(q, cap)`, `q = exp(old_logp - sampler_logp)` (Yao et al. 2025, "Your efficient
    RL framework secretly brings you off-policy RL training")."""

    cap: Annotated[float, Gt(0)] = 2.0
    """Largest weight (> 0)."""

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
        """Weights, and the share of tokens that the cap changed."""
        q = log_ratio(old_logp, sampler_logp).detach().exp()
        metrics = metrics_of("mismatch", {"capped": (q > self.cap).to(q.dtype)}, mask)
        return torch.where(mask, q.clamp(max=self.cap), torch.ones_like(q)), metrics
