"""A soft gate in place of the clip."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Gt

from agentrl.algo.drift import log_ratio, metrics_of
from agentrl.core.registry import register
from agentrl.core.tensors import LossOut


@register("loss", "sapo")
@dataclass(frozen=True, kw_only=True)
class SoftGate:
    """`-A (4 / tau) sigmoid(tau (r - 1))`, whose slope in `r` is 1 on policy and fades smoothly
    (SAPO, Gao et al. 2025, arXiv 2511.20347)."""

    tau_positive: Annotated[float, Gt(0)] = 1.0
    """Steepness where A > 0 (> 0); larger fades sooner."""
    tau_negative: Annotated[float, Gt(0)] = 1.05
    """Steepness elsewhere (> 0)."""

    def __call__(
        self,
        logp: torch.Tensor,
        old_logp: torch.Tensor,
        advantages: torch.Tensor,
        mask: torch.Tensor,
        *,
        trajectory_B: torch.Tensor,
    ) -> LossOut:
        """Per-token loss `[B,T]`, the mean slope of the gate and the ratio's mean."""
        ratio = log_ratio(logp, old_logp).exp()
        tau = torch.where(advantages > 0, self.tau_positive, self.tau_negative)
        gate = torch.sigmoid(tau * (ratio - 1.0))
        found = {"slope": 4.0 * gate * (1.0 - gate), "ratio": ratio}
        loss = -advantages * gate * 4.0 / tau
        return LossOut(loss_BT=loss, metrics=metrics_of("loss", found, mask))
