"""The baseline with the least variance, for gradients whose norm grows with length."""

from __future__ import annotations

from dataclasses import dataclass
from math import fsum
from typing import ClassVar

from agentrl.core.registry import register
from agentrl.core.types import AdvantageOut, Level, Scored


@register("advantage", "opo")
@dataclass(frozen=True, kw_only=True)
class OptimalBaseline:
    """`r_i - sum_j L_j r_j / sum_j L_j`, `L` the sampled tokens of a trajectory (OPO, Hao et al.
    2025, arXiv 2505.23585). An all-equal group gives 0."""

    needs: ClassVar[frozenset[str]] = frozenset()

    def __call__(self, scored: Scored) -> AdvantageOut:
        """Advantages at trajectory level."""
        values = []
        for group, rewards_G in zip(scored.groups, scored.rewards_PG, strict=True):
            pairs = [
                (max(trajectory.n_tokens, 1), reward)
                for trajectory, reward in zip(group.trajectories, rewards_G, strict=True)
                if reward is not None
            ]
            is_flat = len({reward for _, reward in pairs}) <= 1
            weight = sum(length for length, _ in pairs)
            baseline = fsum(length * reward for length, reward in pairs) / max(weight, 1)
            values.append(
                tuple(
                    None if reward is None else 0.0 if is_flat else reward - baseline
                    for reward in rewards_G
                )
            )
        return AdvantageOut(values=tuple(values), level=Level.TRAJECTORY)
