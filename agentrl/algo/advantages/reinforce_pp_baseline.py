"""Rewards centred in the group and scaled by the spread of the whole step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import fmean
from typing import ClassVar, Literal

from agentrl.algo.returns import FLOOR, whitened
from agentrl.core.registry import register
from agentrl.core.types import AdvantageOut, Scored


@register("advantage", "reinforce_pp_baseline")
@dataclass(frozen=True, kw_only=True)
class ReinforceBaseline:
    """`r_i - mean` within the group, whitened over the step (REINFORCE++-Baseline, Hu et al. 2025,
    arXiv 2501.03262).

    `whiten=token` takes mean and deviation over all sampled tokens, as verl does, so that long
    trajectories count more; `sequence` divides by that over trajectories, as ms-swift does.
    """

    whiten: Literal["token", "sequence"] = "token"
    """What the step's statistics are taken over."""

    needs: ClassVar[frozenset[str]] = frozenset()

    def __call__(self, scored: Scored) -> AdvantageOut:
        """Advantages at trajectory level."""
        centred = scored.by_group(_centred)
        mean, divisor = self._statistics(scored, centred)
        left = iter([v for group in centred.values for v in group if isinstance(v, float)])
        return scored.by_group(lambda rewards_G: [(next(left) - mean) / divisor for _ in rewards_G])

    def _statistics(self, scored: Scored, centred: AdvantageOut) -> tuple[float, float]:
        """Mean and divisor; tokens are counted, not listed."""
        pairs = [
            (value, trajectory.n_tokens)
            for group, values in zip(scored.groups, centred.values, strict=True)
            for trajectory, value in zip(group.trajectories, values, strict=True)
            if isinstance(value, float)
        ]
        if self.whiten == "sequence":
            _, divisor = whitened([value for value, _ in pairs])
            return 0.0, divisor
        count = sum(length for _, length in pairs)
        mean = math.fsum(value * length for value, length in pairs) / max(count, 1)
        squares = math.fsum(length * (value - mean) ** 2 for value, length in pairs)
        return mean, math.sqrt(squares / max(count - 1, 1) + FLOOR)


def _centred(rewards_G: list[float]) -> list[float]:
    if len(set(rewards_G)) <= 1:
        return [0.0] * len(rewards_G)
    mean = fmean(rewards_G)
    return [reward - mean for reward in rewards_G]
