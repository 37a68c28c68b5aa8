"""The unclipped surrogate, with a penalty on the few tokens that lower the entropy most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Gt, Le

from agentrl.algo.drift import covariance, is_within, largest, log_ratio, metrics_of, with_slope
from agentrl.core.registry import register
from agentrl.core.tensors import LossOut


@register("loss", "kl_cov")
@dataclass(frozen=True, kw_only=True)
class KlCovariance:
    """`-A r`, and on the `max(1, share N)` tokens with the largest covariance of advantage and
    logprob also `coef |log r|` (KL-Cov, Cui et al. 2025, arXiv 2505.22617).

    The covariance is that of the `N` tokens of a micro-batch.
    """

    depends_on_cut: ClassVar[bool] = True

    share: Annotated[float, Gt(0), Le(1)] = 2e-4
    """Which share of the tokens is held back (0..1)."""
    coef: Annotated[float, Ge(0)] = 1.0
    """What their distance is multiplied by (0 or more)."""

    def __call__(
        self,
        logp: torch.Tensor,
        old_logp: torch.Tensor,
        advantages: torch.Tensor,
        mask: torch.Tensor,
        *,
        trajectory_B: torch.Tensor,
    ) -> LossOut:
        """Per-token loss `[B,T]`, the share of tokens held back and the ratio's mean."""
        with torch.no_grad():
            held = torch.zeros_like(mask)
            n = int(mask.sum())
            if n:
                cov = covariance(advantages, logp, mask).masked_fill_(~mask, -torch.inf)
                held = largest(cov, max(1, int(self.share * n)))
                del cov
            moved = log_ratio(logp, old_logp)
            ratio = moved.exp()
            metrics = metrics_of("loss", {"held": held, "ratio": ratio}, mask)
            slope = ratio.mul_(advantages).neg_()
            value = slope + torch.where(held, self.coef * moved.abs(), 0.0)
            slope += torch.where(held, self.coef * moved.sign(), 0.0)
            slope.masked_fill_(~is_within(logp, old_logp), 0.0)
            del moved
        return LossOut(loss_BT=with_slope(value, slope, logp), metrics=metrics)
