"""Credit of episodes, and of steps beside what siblings did in the same state."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Gt, Le

from agentrl.algo.returns import mean_and_variance, returns_to_go, turn_rewards
from agentrl.core.graph import fuzzy, same_state
from agentrl.core.registry import register
from agentrl.core.types import AdvantageOut, Group, Level, Scored, Sum

EPS = 1e-6
"""Added to standard deviations under `norm=mean_std`."""


@register("advantage", "gigpo")
@dataclass(frozen=True, kw_only=True)
class GroupInGroup:
    """`A_E + omega A_S` of each turn: the episode's score normalised in its group, and the turn's
    return `R_t = r_t + gamma R_{t+1}` normalised among all turns of the group that began in the
    same state (GiGPO, Feng et al. 2025, arXiv 2505.10978).

    A state that was met once gives `A_S = 0`. States are told apart by the env's `state_key()`;
    with `similarity` below 1 keys are texts, and those that nearly agree are one state. The
    released code weighs an episode by its turns in `A_E`'s statistics; so does `across_turns`.
    """

    gamma: Annotated[float, Gt(0), Le(1)] = 0.95
    """Discount of a turn (0..1)."""
    omega: Annotated[float, Ge(0)] = 1.0
    """Weight of the step's part (0 or more)."""
    norm: Literal["mean", "mean_std"] = "mean"
    """Whether centred values are divided by their deviation."""
    similarity: Annotated[float, Gt(0), Le(1)] = 1.0
    """Least similarity of two keys that count as one state (difflib's ratio; 1: equal)."""
    across_turns: bool = False
    """Take the statistics of episodes over their turns."""

    needs: ClassVar[frozenset[str]] = frozenset({"state_keys"})

    def __call__(self, scored: Scored) -> AdvantageOut:
        """Advantages at turn level. `credit/same_state` is how many turns began in a turn's state
        on average (1: the step's part is dead)."""
        found = [self._estimate(group) for group in scored.groups]
        sizes = [size for _, own in found for size in own]
        return AdvantageOut(
            values=tuple(values for values, _ in found),
            level=Level.TURN,
            metrics={"credit/same_state": Sum(float(sum(sizes)), float(len(sizes)))},
        )

    def _estimate(self, group: Group) -> tuple[tuple[list[float] | None, ...], list[int]]:
        of_turns = {
            i: returns_to_go(turn_rewards(group.trajectories[i]), self.gamma) for i in group.scored
        }
        scores = dict(zip(group.scored, group.values, strict=True))
        pool = [
            score
            for i, score in scores.items()
            for _ in range(len(of_turns[i]) if self.across_turns else 1)
        ]
        episodes = {i: self._normalised(score, pool) for i, score in scores.items()}
        steps = {i: [0.0] * len(returns) for i, returns in of_turns.items()}
        sizes = []
        for places in self._states(group):
            pool = [of_turns[i][k] for i, k in places]
            sizes += [len(pool)] * len(pool)
            for i, k in places:
                steps[i][k] = self._normalised(of_turns[i][k], pool)
        values = tuple(
            None if i not in scores else [episodes[i] + self.omega * step for step in steps[i]]
            for i in range(len(group.trajectories))
        )
        return values, sizes

    def _states(self, group: Group) -> Sequence[Sequence[tuple[int, int]]]:
        """Turns of scored siblings that began in the same state."""
        keys = [
            [turn.state_key if t.is_scored else None for turn in t.turns]
            for t in group.trajectories
        ]
        alike = None
        if self.similarity < 1.0:
            alike = fuzzy((key for own in keys for key in own if key is not None), self.similarity)
        return [*same_state(keys, alike).values()]

    def _normalised(self, value: float, pool: Sequence[float]) -> float:
        if len(set(pool)) <= 1:
            return 0.0
        mean, variance = mean_and_variance(pool)
        centred = value - mean
        return centred if self.norm == "mean" else centred / (math.sqrt(variance) + EPS)
