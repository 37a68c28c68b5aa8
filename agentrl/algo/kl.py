"""Divergence from the reference policy, per token, added to the loss (Schulman 2020, "Approximating
KL divergence"). With `d = logp - ref_logp`, clamped to +-20."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Gt

from agentrl.core.registry import register


@dataclass(frozen=True, kw_only=True)
class _Divergence:
    beta: Annotated[float, Gt(0)] = 0.01
    """Coefficient of the divergence in the loss (> 0)."""

    def __call__(self, logp: torch.Tensor, ref_logp: torch.Tensor) -> torch.Tensor:
        """`beta` times the estimate, `[B,T]`."""
        return self.beta * self.estimate((logp - ref_logp).clamp(-20.0, 20.0))

    def estimate(self, d: torch.Tensor) -> torch.Tensor:
        """The estimate for log-ratios `d`."""
        raise NotImplementedError


@register("kl", "k1")
@dataclass(frozen=True, kw_only=True)
class K1(_Divergence):
    """`d`: unbiased in value; its gradient in a loss has mean zero."""

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
    """`exp(-d) - 1 + d`, at most 10: unbiased, never negative (GRPO, arXiv 2402.03300, eq. 4)."""

    def estimate(self, d: torch.Tensor) -> torch.Tensor:
        """`exp(-d) - 1 + d`."""
        return (torch.expm1(-d) + d).clamp(0.0, 10.0)
