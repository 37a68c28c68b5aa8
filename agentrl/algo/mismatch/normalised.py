"""Another correction's weights, scaled to mean 1."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

import torch

from agentrl.core.protocols import Mismatch
from agentrl.core.registry import register
from agentrl.core.shapes import DefaultPart, Slot
from agentrl.core.types import Sum


@register("mismatch", "normalised")
@dataclass(frozen=True, kw_only=True)
class Normalised:
    """The weights of `of` over their mean (self-normalised importance sampling): a drift that all
    tokens share changes no step size.

    The mean is that of the micro-batch, so the step depends on `optim.tokens_per_microbatch`.
    """

    of: Annotated[Mismatch, Slot("mismatch")] = field(
        default_factory=DefaultPart("mismatch", "tis")
    )
    """The correction whose weights are scaled."""

    depends_on_cut: ClassVar[bool] = True

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
        """Weights of mean 1 over the mask (all 0 if `of` leaves everything out)."""
        weights, metrics = self.of(
            old_logp,
            sampler_logp,
            mask,
            logp=logp,
            advantages=advantages,
            trajectory_B=trajectory_B,
        )
        mean = torch.where(mask, weights, torch.zeros_like(weights)).sum() / mask.sum().clamp(min=1)
        scaled = weights / torch.where(mean > 0, mean, torch.ones_like(mean))
        return torch.where(mask, scaled, torch.ones_like(weights)), metrics
