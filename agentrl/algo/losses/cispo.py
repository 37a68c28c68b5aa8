"""REINFORCE whose importance weight is clipped, so that no token loses its gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Gt, Lt

from agentrl.algo.drift import log_ratio, metrics_of
from agentrl.core.registry import register
from agentrl.core.tensors import LossOut


@register("loss", "cispo")
@dataclass(frozen=True, kw_only=True)
class ClippedWeight:
    """`-sg(w) A logp`, `w` the clipped ratio (CISPO of MiniMax-M1, arXiv 2506.13585, section 3.1).

    `mode=cap` bounds the ratio above, at `cap`; `mode=clip` on both sides, at `1 - low` and
    `1 + high`.
    """

    mode: Literal["cap", "clip"] = "cap"
    """Which bounds hold."""
    cap: Annotated[float, Gt(0)] = 5.0
    """Largest weight of `mode=cap` (> 0)."""
    low: Annotated[float, Gt(0), Lt(1)] = 0.2
    """Lower clip of `mode=clip` (0..1)."""
    high: Annotated[float, Gt(0)] = 0.2
    """Upper clip of `mode=clip` (> 0)."""

    def __call__(
        self,
        logp: torch.Tensor,
        old_logp: torch.Tensor,
        advantages: torch.Tensor,
        mask: torch.Tensor,
        *,
        trajectory_B: torch.Tensor,
    ) -> LossOut:
        """Per-token loss `[B,T]`, the share of clipped weights and the ratio's mean."""
        ratio = log_ratio(logp, old_logp).exp().detach()
        least, most = (0.0, self.cap) if self.mode == "cap" else (1.0 - self.low, 1.0 + self.high)
        weight = ratio.clamp(least, most)
        found = {"clipped": (weight != ratio).to(ratio.dtype), "ratio": ratio}
        loss = -weight * advantages * logp
        return LossOut(loss_BT=loss, metrics=metrics_of("loss", found, mask))
