"""Group-relative advantages (GRPO)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge

from agentrl.core.registry import register
from agentrl.core.types import AdvantageOut, Scored


@register("advantage", "grpo")
@dataclass(frozen=True, kw_only=True)
class GroupNormalised:
    """`(r_i - mean) / (std + eps)` within the group (Shao et al. 2024, arXiv 2402.03300, eq. 3).

    The standard deviation has ddof 1, as in the public trainers; an all-equal group gives 0.
    `scale=none` is Dr. GRPO (Liu et al. 2025, arXiv 2503.20783); `scale=batch` divides by the
    deviation of all rewards of the step.
    """

    scale: Literal["group", "batch", "none"] = "group"
    """What the centred reward is divided by."""
    eps: Annotated[float, Ge(0)] = 1e-4
    """Added to the standard deviation (>= 0)."""

    needs: ClassVar[frozenset[str]] = frozenset()

    def __call__(self, scored: Scored) -> AdvantageOut:
        """Advantages at trajectory level."""
        everything = [r for group in scored.rewards_PG for r in group if r is not None]
        batch_std = stdev(everything) if len(everything) > 1 else 0.0

        def estimate(rewards_G: list[float]) -> Sequence[float]:
            if len(set(rewards_G)) <= 1:
                return [0.0] * len(rewards_G)
            mean = fmean(rewards_G)
            std = {"group": stdev(rewards_G), "batch": batch_std, "none": math.nan}[self.scale]
            divisor = 1.0 if self.scale == "none" else std + self.eps
            return [(reward - mean) / divisor for reward in rewards_G]

        return scored.by_group(estimate)
