"""The plain policy gradient, which is also supervised learning on what is kept."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from agentrl.algo.drift import log_ratio, metrics_of
from agentrl.core.registry import register
from agentrl.core.tensors import LossOut


@register("loss", "reinforce")
@dataclass(frozen=True, kw_only=True)
class Reinforce:
    """`-w A logp` with `w = 1`, or the detached ratio where it is `weighted` (Williams 1992;
    Ahmadian et al. 2024, arXiv 2402.14740, eq. 3).

    With advantages of 1 (`raft`, `expert_iteration`) it is the negative log-likelihood.
    """

    weighted: bool = False
    """Weigh tokens by their ratio to the weights that they were sampled with, unclipped."""

    def __call__(
        self,
        logp: torch.Tensor,
        old_logp: torch.Tensor,
        advantages: torch.Tensor,
        mask: torch.Tensor,
        *,
        trajectory_B: torch.Tensor,
    ) -> LossOut:
        """Per-token loss `[B,T]` and the ratio's mean."""
        ratio = log_ratio(logp, old_logp).detach().exp()
        loss = -advantages * logp
        if self.weighted:
            loss = loss * ratio
        return LossOut(loss_BT=loss, metrics=metrics_of("loss", {"ratio": ratio}, mask))
