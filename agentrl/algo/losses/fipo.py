"""PPO's clip, with advantages weighed by what the update does to the tokens that follow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Gt, Lt

from agentrl.algo.drift import REACH, log_ratio, metrics_of
from agentrl.algo.losses.ppo_clip import PpoClip
from agentrl.core.registry import register
from agentrl.core.tensors import LossOut


@register("loss", "fipo")
@dataclass(frozen=True, kw_only=True)
class FutureKl:
    """`max(-A f r, -A f clip(r, 1 - low, 1 + high))`, `f_t = exp(sum_{k >= t} g^(k-t) log r_k)`,
    the sum over the sampled tokens of the row that follow, clipped to `1 - weight..1 + weight`, and
    `g = 2^(-1 / half_life)` (FIPO, Ma et al. 2026, arXiv 2603.19835). `f` is detached, and 1 on
    policy."""

    low: Annotated[float, Gt(0), Lt(1)] = 0.2
    """Lower clip of the ratio (0..1)."""
    high: Annotated[float, Gt(0)] = 0.28
    """Upper clip of the ratio (above 0)."""
    weight: Annotated[float, Gt(0), Lt(1)] = 0.2
    """How far `f` may go from 1 (0..1)."""
    half_life: Annotated[float, Gt(0)] = 32.0
    """Tokens after which the future counts half (above 0)."""
    high_only: bool = False
    """Never weigh a token below 1, as the released recipe does."""

    def __call__(
        self,
        logp: torch.Tensor,
        old_logp: torch.Tensor,
        advantages: torch.Tensor,
        mask: torch.Tensor,
        *,
        trajectory_B: torch.Tensor,
    ) -> LossOut:
        """Per-token loss `[B,T]`, its clip fractions, the ratio's mean and that of `f`."""
        with torch.no_grad():
            moved = log_ratio(logp, old_logp)
            f = discounted_future(moved, mask, 2.0 ** (-1.0 / self.half_life))
            del moved
            least = 1.0 if self.high_only else 1.0 - self.weight
            f = f.clamp_(-REACH, REACH).exp_().clamp_(least, 1.0 + self.weight)
            metrics = metrics_of("loss", {"future_weight": f}, mask)
            weighed = f.mul_(advantages)
        clip = PpoClip(low=self.low, high=self.high)
        out = clip(logp, old_logp, weighed, mask, trajectory_B=trajectory_B)
        return LossOut(loss_BT=out.loss_BT, metrics={**out.metrics, **metrics})


def discounted_future(values_BT: torch.Tensor, mask: torch.Tensor, g: float) -> torch.Tensor:
    """`[B,T]`: `sum_{k >= t} g^(n_k - n_t) x_k`, `n` the count of masked tokens so far."""
    # Tokens first, so that what is added in one step lies together.
    mask_TB = mask.T.contiguous()
    sums_TB = torch.where(mask_TB, values_BT.T, 0.0)
    rows, masks = sums_TB.unbind(), mask_TB.unbind()
    for t in range(len(rows) - 2, -1, -1):
        rows[t].add_(torch.where(masks[t], g * rows[t + 1], rows[t + 1]))
    return sums_TB.T.contiguous()
