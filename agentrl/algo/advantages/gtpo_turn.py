"""Returns of turns, normalised within the group."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Gt, Le

from agentrl.algo.returns import mean_and_variance, returns_to_go, turn_rewards
from agentrl.core.registry import register
from agentrl.core.types import AdvantageOut, Group, Level, Scored, Trajectory


@register("advantage", "gtpo_turn")
@dataclass(frozen=True, kw_only=True)
class TurnReturns:
    """`R_k = r_k + gamma R_{k+1}` of each turn, `(R - mean) / (std + eps)` over the group (after
    Ding et al. 2025, arXiv 2511.14846; its formula was not found, this is our reading).

    Failures may earn `similarity` times how much of a successful sibling's tokens they share (Dice
    coefficient of pairs of neighbouring tokens), in their last turn.
    """

    gamma: Annotated[float, Gt(0), Le(1)] = 0.9
    """Discount of a turn (0..1)."""
    pool: Literal["all", "index"] = "all"
    """Statistics over all turns of the siblings, or over the turns with the same number; a number
    that one sibling alone reached gives 0."""
    similarity: Annotated[float, Ge(0), Le(1)] = 0.0
    """What a failure would earn that did all that a success did (0..1)."""
    eps: Annotated[float, Ge(0)] = 1e-4
    """Added to the standard deviation (>= 0)."""

    needs: ClassVar[frozenset[str]] = frozenset()

    def __call__(self, scored: Scored) -> AdvantageOut:
        """Advantages at turn level."""
        return AdvantageOut(
            values=tuple(tuple(self._estimate(group)) for group in scored.groups), level=Level.TURN
        )

    def _estimate(self, group: Group) -> Iterator[list[float] | None]:
        returns = {i: self._returns(group, i) for i in group.scored}
        pools: dict[int, list[float]] = {}
        for found in returns.values():
            for k, value in enumerate(found):
                pools.setdefault(0 if self.pool == "all" else k, []).append(value)
        scales = {key: self._scale(pool) for key, pool in pools.items()}
        for i in range(len(group.trajectories)):
            if i not in returns:
                yield None
                continue
            found = []
            for k, value in enumerate(returns[i]):
                mean, divisor = scales[0 if self.pool == "all" else k]
                found.append((value - mean) / divisor)
            yield found

    def _scale(self, pool: Sequence[float]) -> tuple[float, float]:
        """Mean and divisor of a pool; what is all equal becomes 0."""
        if len(set(pool)) <= 1:
            return pool[0], 1.0
        mean, variance = mean_and_variance(pool)
        return mean, math.sqrt(variance) + self.eps

    def _returns(self, group: Group, i: int) -> list[float]:
        trajectory = group.trajectories[i]
        rewards = turn_rewards(trajectory)
        if self.similarity and rewards and not trajectory.success:
            others = (group.trajectories[j] for j in group.scored)
            shared = [alike(trajectory, other) for other in others if other.success]
            rewards[-1] += self.similarity * max(shared, default=0.0)
        return returns_to_go(rewards, self.gamma)


def alike(one: Trajectory, other: Trajectory) -> float:
    """`2 |common| / (|one| + |other|)` of the pairs of neighbouring sampled tokens (0..1)."""
    mine, theirs = _pairs(one), _pairs(other)
    common = sum(min(count, theirs.get(pair, 0)) for pair, count in mine.items())
    total = sum(mine.values()) + sum(theirs.values())
    return 2 * common / total if total else 1.0


def _pairs(trajectory: Trajectory) -> dict[tuple[int, int], int]:
    ids = [token for turn in trajectory.turns for token in (*turn.action_ids, -1)]
    counts: dict[tuple[int, int], int] = {}
    for pair in pairwise(ids):
        counts[pair] = counts.get(pair, 0) + 1
    return counts
