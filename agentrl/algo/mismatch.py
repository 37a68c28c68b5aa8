"""Correction for tokens whose sampler was not quite the policy that is trained: an older version,
another engine, another precision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Gt

from agentrl.core.registry import register
from agentrl.core.types import Sum


@register("mismatch", "tis")
@dataclass(frozen=True, kw_only=True)
class TruncatedImportance:
    """Per-token `min(exp(old_logp - sampler_logp), cap)` (Yao et al. 2025, "Your efficient RL
    framework secretly brings you off-policy RL training")."""

    cap: Annotated[float, Gt(0)] = 2.0
    """Largest weight (> 0)."""

    def __call__(
        self, old_logp: torch.Tensor, sampler_logp: torch.Tensor, mask: torch.Tensor
    ) -> tuple[torch.Tensor, Mapping[str, Sum]]:
        """Detached weights `[B,T]`, and how far the two policies are apart."""
        q = (old_logp - sampler_logp).detach().clamp(-20.0, 20.0).exp()
        count = float(mask.sum())
        metrics = {
            "mismatch/ratio": Sum(float((q * mask).sum()), count),
            "mismatch/capped": Sum(float(((q > self.cap) & mask).sum()), count),
        }
        return torch.where(mask, q.clamp(max=self.cap), torch.ones_like(q)), metrics
