"""Divergence from the reference policy, per token (Schulman 2020, "Approximating KL divergence").
With `d = logp - ref_logp`, clamped to +-20.

In the loss the gradient decides, in the reward the value: see `train/kl_reward.py` for the latter.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Gt

from agentrl.algo.drift import k3_of, log_ratio
from agentrl.core.errors import ConfigError
from agentrl.core.registry import register


@dataclass(frozen=True, kw_only=True)
class _Divergence:
    beta: Annotated[float, Gt(0)] = 0.01
    """Coefficient of the divergence (> 0; 1e-3 to 4e-2 are usual)."""
    placement: Literal["loss", "reward"] = "loss"
    """`loss`: added to each token's loss. `reward`: summed over the sampled tokens of each
    trajectory and taken from its score before credit is given (REINFORCE++, RLOO)."""
    corrected: bool = False
    """In the loss, multiply by `exp(logp - old_logp)`, gradient included: then tokens that older
    weights sampled give the gradient of KL(live || reference) (DeepSeek-V3.2, arXiv 2512.02556,
    sec. 3.1)."""

    def __post_init__(self) -> None:
        if self.corrected and self.placement == "reward":
            raise ConfigError("corrected: only for placement=loss; a reward has no gradient")

    def __call__(
        self, logp: torch.Tensor, ref_logp: torch.Tensor, old_logp: torch.Tensor
    ) -> torch.Tensor:
        """`beta` times the estimate, `[B,T]`."""
        estimate = self.beta * self.estimate(log_ratio(logp, ref_logp))
        return estimate * log_ratio(logp, old_logp).exp() if self.corrected else estimate

    def estimate(self, d: torch.Tensor) -> torch.Tensor:
        """The estimate for log-ratios `d`."""
        raise NotImplementedError


@register("kl", "k1")
@dataclass(frozen=True, kw_only=True)
class K1(_Divergence):
    """`d`: unbiased in value; its gradient in a loss has mean zero, so it belongs in the reward (or
    is `corrected`)."""

    def estimate(self, d: torch.Tensor) -> torch.Tensor:
        """`d`."""
        return d


@register("kl", "k2")
@dataclass(frozen=True, kw_only=True)
class K2(_Divergence):
    """`d^2 / 2`: biased in value; its gradient in a loss is that of KL(pi || ref)."""

    def estimate(self, d: torch.Tensor) -> torch.Tensor:
        """`d^2 / 2`."""
        return 0.5 * d.square()


@register("kl", "k3")
@dataclass(frozen=True, kw_only=True)
class K3(_Divergence):
    """`exp(-d) - 1 + d`, at most 10: unbiased, never negative (GRPO, arXiv 2402.03300, eq. 4); its
    gradient in a loss is that of KL(ref || pi)."""

    def estimate(self, d: torch.Tensor) -> torch.Tensor:
        """`exp(-d) - 1 + d`."""
        return k3_of(d)


@register("kl", "k3+")
@dataclass(frozen=True, kw_only=True)
class K3Plus(_Divergence):
    """The value of k3 with the gradient of k2 (straight-through): unbiased in value, and in a loss
    the gradient is that of KL(pi || ref)."""

    def estimate(self, d: torch.Tensor) -> torch.Tensor:
        """`k3`, whose gradient is `d`."""
        k2 = 0.5 * d.square()
        return k3_of(d).detach() + (k2 - k2.detach())
