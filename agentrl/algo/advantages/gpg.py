"""Centred rewards, scaled up by how many of the step tell nothing."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean
from typing import Annotated, ClassVar

from annotated_types import Gt

from agentrl.core.registry import register
from agentrl.core.types import AdvantageOut, Scored


@register("advantage", "gpg")
@dataclass(frozen=True, kw_only=True)
class GroupPolicyGradient:
    """`alpha (r_i - mean) / norm`, `alpha` the step's trajectories over those whose reward is not 0
    (GPG, Chu et al. 2025, arXiv 2504.02546). Meant for the unclipped surrogate."""

    norm: Annotated[float, Gt(0)] = 1.0
    """What the centred rewards are divided by (> 0)."""

    needs: ClassVar[frozenset[str]] = frozenset()

    def __call__(self, scored: Scored) -> AdvantageOut:
        """Advantages at trajectory level."""
        everything = [r for group in scored.rewards_PG for r in group if r is not None]
        paid = sum(reward != 0 for reward in everything)
        factor = len(everything) / max(paid, 1) / self.norm

        def estimate(rewards_G: list[float]) -> list[float]:
            if len(set(rewards_G)) <= 1:
                return [0.0] * len(rewards_G)
            mean = fmean(rewards_G)
            return [factor * (reward - mean) for reward in rewards_G]

        return scored.by_group(estimate)
