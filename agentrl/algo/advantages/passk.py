"""Credit for the best of a group alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import stdev
from typing import Annotated, ClassVar

from annotated_types import Ge

from agentrl.core.registry import register
from agentrl.core.types import AdvantageOut, Scored


@register("advantage", "passk")
@dataclass(frozen=True, kw_only=True)
class BestOfGroup:
    """`(r_max - r_second) / (std + eps)` for the best trajectory and 0 for its siblings: what the
    maximum of the group gained by it, as verl's `grpo_passk` has it (its source: arXiv 2503.19595).
    Ties for the best give 0 to all.
    """

    eps: Annotated[float, Ge(0)] = 1e-4
    """Added to the standard deviation (>= 0)."""
    scale: bool = True
    """Divide by the deviation."""

    needs: ClassVar[frozenset[str]] = frozenset()

    def __call__(self, scored: Scored) -> AdvantageOut:
        """Advantages at trajectory level."""
        return scored.by_group(self._estimate)

    def _estimate(self, rewards_G: list[float]) -> Sequence[float]:
        if len(set(rewards_G)) <= 1:
            return [0.0] * len(rewards_G)
        second, best = sorted(rewards_G)[-2:]
        divisor = stdev(rewards_G) + self.eps if self.scale else 1.0
        return [(best - second) / divisor if reward == best else 0.0 for reward in rewards_G]
