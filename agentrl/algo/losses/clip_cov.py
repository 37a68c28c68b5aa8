"""The clipped surrogate, without a few of the tokens that lower the entropy most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Gt, Le, Lt

from agentrl.algo.drift import covariance, log_ratio, metrics_of
from agentrl.algo.losses.ppo_clip import PpoClip
from agentrl.core.errors import ConfigError
from agentrl.core.registry import register
from agentrl.core.tensors import LossOut


@register("loss", "clip_cov")
@dataclass(frozen=True, kw_only=True)
class ClipCovariance:
    """PPO's clipped loss; of the unclipped tokens whose covariance of advantage and logprob lies in
    `floor..ceiling`, `max(1, share N)` drawn ones have none (Clip-Cov, Cui et al. 2025,
    arXiv 2505.22617).

    The covariance is that of the `N` tokens of a micro-batch. Lots are drawn by hashing a token's
    own numbers: they depend neither on the order of rows nor on a generator.
    """

    depends_on_cut: ClassVar[bool] = True
    drops_tokens: ClassVar[bool] = True
    """Some tokens have no gradient even on policy."""

    low: Annotated[float, Gt(0), Lt(1)] = 0.2
    """Lower clip of the ratio (0..1)."""
    high: Annotated[float, Gt(0)] = 0.2
    """Upper clip of the ratio (> 0)."""
    share: Annotated[float, Gt(0), Le(1)] = 2e-4
    """Which share of the tokens is drawn (0..1)."""
    floor: float = 1.0
    """Covariances below are left alone."""
    ceiling: float = 5.0
    """Covariances above are left alone."""

    def __post_init__(self) -> None:
        if self.floor >= self.ceiling:
            raise ConfigError(f"floor: must be below ceiling={self.ceiling} (got {self.floor})")

    def __call__(
        self,
        logp: torch.Tensor,
        old_logp: torch.Tensor,
        advantages: torch.Tensor,
        mask: torch.Tensor,
        *,
        trajectory_B: torch.Tensor,
    ) -> LossOut:
        """Per-token loss `[B,T]`, its clip fractions, and the share of tokens that were dropped."""
        out = PpoClip(low=self.low, high=self.high)(
            logp, old_logp, advantages, mask, trajectory_B=trajectory_B
        )
        with torch.no_grad():
            ratio = log_ratio(logp, old_logp).exp_()
            may = (ratio >= 1.0 - self.low) | (advantages >= 0)
            may &= (ratio <= 1.0 + self.high) | (advantages <= 0)
            del ratio
            cov = covariance(advantages, logp, mask)
            may &= mask & (cov > self.floor) & (cov < self.ceiling)
            del cov
            places = may.flatten().nonzero().squeeze(-1)
            count = min(max(1, int(self.share * int(mask.sum()))), len(places))
            drawn = torch.zeros_like(mask)
            lots = hashed(logp[may], old_logp[may], advantages[may])
            drawn.view(-1)[places[lots.topk(count).indices]] = True
            metrics = metrics_of("loss", {"dropped": drawn}, mask)
        return LossOut(
            loss_BT=out.loss_BT.masked_fill(drawn, 0.0), metrics={**out.metrics, **metrics}
        )


def hashed(*values: torch.Tensor) -> torch.Tensor:
    """A number in 0..1 for each place, equal where all values are."""
    mixed = torch.zeros_like(values[0], dtype=torch.float64)
    for value in values:
        mixed = (torch.sin(12.9898 * value.double() + 78.233 * mixed) * 43758.5453).frac()
    return mixed.abs()
