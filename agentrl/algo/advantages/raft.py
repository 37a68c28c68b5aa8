"""Reward-ranked fine-tuning: learn the best of each group, and nothing else."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Ge

from agentrl.algo.keeping import kept_alone
from agentrl.core.registry import register
from agentrl.core.types import AdvantageOut, Scored


@register("advantage", "raft")
@dataclass(frozen=True, kw_only=True)
class RewardRanked:
    """1 for the `best` trajectories of a group by reward; the others are left out of the loss and
    its counts (RAFT, Dong et al. 2023, arXiv 2304.06767). Under `loss=reinforce` this is supervised
    fine-tuning on them.

    Ties for the last place share it, so that each group counts the same.
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    best: Annotated[int, Ge(1)] = 1
    """How many of a group are kept (1 or more)."""
    min_reward: float | None = None
    """A group whose best reward is below this is left out; `none` leaves none out."""

    def __call__(self, scored: Scored) -> AdvantageOut:
        """Advantages at trajectory level, from 0 to 1."""
        weights = [self._weights(rewards_G) for rewards_G in scored.rewards_PG]
        return kept_alone(scored, weights)

    def _weights(self, rewards_G: tuple[float | None, ...]) -> list[float]:
        known = sorted((r for r in rewards_G if r is not None), reverse=True)
        if not known or (self.min_reward is not None and known[0] < self.min_reward):
            return [0.0] * len(rewards_G)
        last = known[: self.best][-1]
        above = sum(r > last for r in known)
        share = (min(self.best, len(known)) - above) / Counter(known)[last]
        return [0.0 if r is None or r < last else 1.0 if r > last else share for r in rewards_G]
