"""A policy gradient with a quadratic penalty instead of ratios."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Gt

from agentrl.algo.drift import log_ratio, metrics_of
from agentrl.core.registry import register
from agentrl.core.tensors import LossOut


@register("loss", "dro")
@dataclass(frozen=True, kw_only=True)
class DirectReward:
    """`-(A logp - beta / 2 (log r)^2)`, `r` the ratio to the weights that sampled the token: for
    data of any policy, without importance weights (after DRO, Richemond et al. 2024, arXiv
    2405.19107, whose value function is the estimator's business here)."""

    beta: Annotated[float, Gt(0)] = 0.1
    """Strength of the penalty (above 0)."""

    def __call__(
        self,
        logp: torch.Tensor,
        old_logp: torch.Tensor,
        advantages: torch.Tensor,
        mask: torch.Tensor,
        *,
        trajectory_B: torch.Tensor,
    ) -> LossOut:
        """Per-token loss `[B,T]`, the ratio's mean and the penalty's."""
        moved = log_ratio(logp, old_logp)
        penalty = 0.5 * self.beta * moved.square()
        found = {"ratio": moved.exp(), "dro_penalty": penalty}
        loss = penalty - advantages * logp
        return LossOut(loss_BT=loss, metrics=metrics_of("loss", found, mask))
