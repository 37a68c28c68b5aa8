"""A soft gate in place of the clip."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Gt

from agentrl.algo.drift import is_within, log_ratio, metrics_of, with_slope
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
        with torch.no_grad():
            ratio = log_ratio(logp, old_logp).exp_()
            tau = torch.where(advantages > 0, self.tau_positive, self.tau_negative).to(ratio)
            gate = (ratio - 1.0).mul_(tau).sigmoid_()
            value = torch.div(gate, tau, out=tau).mul_(advantages).mul_(-4.0)
            gate = (1.0 - gate).mul_(gate).mul_(4.0)
            metrics = metrics_of("loss", {"slope": gate, "ratio": ratio}, mask)
            slope = gate.mul_(ratio).mul_(advantages).neg_()
            del ratio
            slope.masked_fill_(~is_within(logp, old_logp), 0.0)
        return LossOut(loss_BT=with_slope(value, slope, logp), metrics=metrics)
