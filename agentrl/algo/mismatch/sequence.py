"""Importance weights of whole trajectories."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt

from agentrl.algo.drift import log_ratio, metrics_of, trajectory_sum
from agentrl.core.errors import ConfigError
from agentrl.core.registry import register
from agentrl.core.types import Sum


@register("mismatch", "sequence")
@dataclass(frozen=True, kw_only=True)
class SequenceImportance:
    """`Q`, the product of `exp(old_logp - sampler_logp)` over a trajectory's tokens, on each of
    them: `mask` sets it to 0 outside `floor..cap`, `truncate` clamps it (Liu et al. 2025, "When
    speed kills stability: demystifying RL collapse from the training-inference mismatch").

    Products grow with length: a mean ratio of 1.1 over 100 tokens is 1.4e4. Long episodes are
    better served by `tis` or `geometric`.
    """

    mode: Literal["mask", "truncate"] = "mask"
    """What becomes of a product outside the bounds: 0, or the bound."""
    cap: Annotated[float, Gt(0)] = 3.0
    """Upper bound of the product (> 0)."""
    floor: Annotated[float, Ge(0)] = 0.0
    """Lower bound of the product (0: none)."""

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
        """Weights, and the share of tokens whose trajectory was out of bounds."""
        d = (old_logp - sampler_logp).detach()
        total_B = trajectory_sum(d, mask, trajectory_B)
        q_BT = log_ratio(total_B, torch.zeros_like(total_B)).exp()[:, None].expand_as(d)
        is_out = (q_BT > self.cap) | (q_BT < self.floor)
        kept = q_BT.clamp(self.floor, self.cap)
        weights = kept if self.mode == "truncate" else kept.masked_fill(is_out, 0.0)
        key = "capped" if self.mode == "truncate" else "rejected"
        metrics = metrics_of("mismatch", {key: is_out.to(d.dtype)}, mask)
        return torch.where(mask, weights, torch.ones_like(d)), metrics
