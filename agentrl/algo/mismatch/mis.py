"""Masked importance sampling, token by token."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge, Gt

from agentrl.algo.drift import log_ratio, metrics_of
from agentrl.core.errors import ConfigError
from agentrl.core.registry import register
from agentrl.core.types import Sum


@register("mismatch", "mis")
@dataclass(frozen=True, kw_only=True)
class MaskedImportance:
    """Per-token `q` within `floor..cap` and 0 outside, `q = exp(old_logp - sampler_logp)`: the
    masked form of `tis`; with a floor the two-sided mask of IcePop (Ling team 2025, arXiv
    2510.18855)."""

    cap: Annotated[float, Gt(0)] = 2.0
    """Largest ratio that is trained (> 0)."""
    floor: Annotated[float, Ge(0)] = 0.0
    """Smallest ratio that is trained (0: one-sided)."""

    def __post_init__(self) -> None:
        if self.floor >= self.cap:
            raise ConfigError(f"floor: must be below cap={self.cap} (got {self.floor})")

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
        """Weights, and the share of tokens that were left out."""
        q = log_ratio(old_logp, sampler_logp).detach().exp()
        is_out = (q > self.cap) | (q < self.floor)
        metrics = metrics_of("mismatch", {"rejected": is_out.to(q.dtype)}, mask)
        return torch.where(mask, q.masked_fill(is_out, 0.0), torch.ones_like(q)), metrics
