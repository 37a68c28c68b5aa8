"""REINFORCE inside a trust region of probabilities, not of their ratios."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Gt

from agentrl.algo.drift import log_ratio, metrics_of
from agentrl.core.registry import register
from agentrl.core.tensors import LossOut

EDGE = 1e-7
"""Probabilities are kept this far from 0 and 1 in the binary KL."""


@register("loss", "dppo")
@dataclass(frozen=True, kw_only=True)
class DivergenceProximal:
    """`-A sg(min(r, cap)) logp`, without the tokens that are beyond the trust region and would be
    pushed further out (Qi et al. 2026, DPPO, arXiv 2602.04879).

    `divergence=tv` measures `|p - p_old|` of the sampled token, `kl` the divergence KL(old || new)
    of "this token or another". A rare token's ratio may be large while both hardly move.
    """

    divergence: Literal["tv", "kl"] = "tv"
    """How far two policies are apart at a token."""
    radius: Annotated[float, Gt(0)] = 0.15
    """Largest divergence (> 0; 0.15 suits tv, 0.05 kl)."""
    cap: Annotated[float, Gt(1)] = 20.0
    """Largest weight (> 1)."""

    def __call__(
        self,
        logp: torch.Tensor,
        old_logp: torch.Tensor,
        advantages: torch.Tensor,
        mask: torch.Tensor,
        *,
        trajectory_B: torch.Tensor,
    ) -> LossOut:
        """Per-token loss `[B,T]`, the share of tokens left out and the ratio's mean."""
        with torch.no_grad():
            p, p_old = logp.exp(), old_logp.exp()
            is_out = torch.where(advantages > 0, p > p_old, p < p_old)
            apart = p.sub_(p_old).abs_() if self.divergence == "tv" else binary_kl(p_old, p)
            is_out &= apart > self.radius
            del p, p_old, apart
            ratio = log_ratio(logp, old_logp).exp_()
            metrics = metrics_of("loss", {"clipped": is_out, "ratio": ratio}, mask)
            weight = ratio.clamp_(max=self.cap).mul_(advantages).neg_().masked_fill_(is_out, 0.0)
        return LossOut(loss_BT=weight * logp, metrics=metrics)


def binary_kl(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """KL(p || q) in nats of coins that fall on heads with these probabilities."""
    p, q = p.clamp(EDGE, 1.0 - EDGE), q.clamp(EDGE, 1.0 - EDGE)
    return p * (p / q).log() + (1.0 - p) * ((1.0 - p) / (1.0 - q)).log()
