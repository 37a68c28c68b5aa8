"""REINFORCE leave-one-out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from agentrl.core.registry import register
from agentrl.core.types import AdvantageOut, Scored


@register("advantage", "rloo")
@dataclass(frozen=True, kw_only=True)
class LeaveOneOut:
    """`r_i` minus the mean of its siblings' rewards (Ahmadian et al. 2024, 2402.14740, eq. 7).

    Equals `n / (n - 1) * (r_i - mean)`. A lone trajectory has no siblings and gets 0.
    """

    needs: ClassVar[frozenset[str]] = frozenset()

    def __call__(self, scored: Scored) -> AdvantageOut:
        """Advantages at trajectory level."""
        return scored.by_group(_leave_one_out)


def _leave_one_out(rewards_G: list[float]) -> Sequence[float]:
    if len(set(rewards_G)) <= 1:
        return [0.0] * len(rewards_G)
    total, others = math.fsum(rewards_G), len(rewards_G) - 1
    return [reward - (total - reward) / others for reward in rewards_G]
