"""Credit of steps beside what siblings did in the same state, with the same history or without."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Ge, Gt, Le

from agentrl.algo.returns import returns_to_go, turn_rewards
from agentrl.algo.states import Norm, Place, among, by_state, episode_part, places_of
from agentrl.core.registry import register
from agentrl.core.types import AdvantageOut, Group, Scored


@register("advantage", "hgpo")
@dataclass(frozen=True, kw_only=True)
class HierarchyOfGroups:
    """`A = sum_k w_k A^k`: a turn's return `R_t = r_t + gamma R_{t+1}` normalised among all turns
    of the group whose last `k` states were the same, for `k` = 1 (the state alone) to
    `history + 1`, with `w_k` proportional to `(k + 1)^alpha` (HGPO, He et al. 2026, arXiv
    2602.22817; the weights are those of its released code).

    Levels at which a turn is alone are left out, and the weights of the others sum to 1. The
    released code also leaves out levels whose advantage happens to be exactly 0; here these count.
    """

    gamma: Annotated[float, Gt(0), Le(1)] = 0.95
    """Discount of a turn (0..1)."""
    history: Annotated[int, Ge(0)] = 2
    """Most earlier states that must agree (0 or more; 0: the step's part of GiGPO)."""
    alpha: Annotated[float, Ge(0)] = 1.0
    """How much more a longer common history weighs (0: as much)."""
    episode: bool = False
    """Add the episode's score, normalised in its group, as a level `k` = 0."""
    norm: Norm = "mean"
    """Whether centred values are divided by their deviation."""
    similarity: Annotated[float, Gt(0), Le(1)] = 1.0
    """Least similarity of two keys that count as one state (difflib's ratio; 1: equal)."""

    needs: ClassVar[frozenset[str]] = frozenset({"state_keys"})

    def __call__(self, scored: Scored) -> AdvantageOut:
        """Advantages at turn level. `credit/same_state` is how many turns began in a turn's state
        on average (1: nothing but `episode` is left)."""
        return by_state(scored, self.similarity, self._estimate)

    def _estimate(
        self, group: Group, states: dict[int, list[Hashable]]
    ) -> tuple[list[float] | None, ...]:
        returns = {
            i: returns_to_go(turn_rewards(group.trajectories[i]), self.gamma) for i in states
        }
        levels: dict[Place, list[tuple[float, float]]] = {}
        if self.episode:
            for i, value in episode_part(group, self.norm).items():
                for k in range(len(states[i])):
                    levels[i, k] = [(1.0, value)]
        for k in range(1, self.history + 2):
            weight = (k + 1) ** self.alpha
            alike = places_of({i: _last(own, k, i) for i, own in states.items()})
            for places in alike.values():
                if len(places) > 1:
                    for place, value in among(returns, places, self.norm):
                        levels.setdefault(place, []).append((weight, value))
        return tuple(
            None
            if i not in states
            else [_mean(levels.get((i, k), [])) for k in range(len(t.turns))]
            for i, t in enumerate(group.trajectories)
        )


def _last(states: list[Hashable], count: int, trajectory: int) -> list[Hashable]:
    """The last `count` states at each turn; a turn that has not so many is alone."""
    return [
        tuple(states[k + 1 - count : k + 1]) if k + 1 >= count else (trajectory, k)
        for k in range(len(states))
    ]


def _mean(levels: list[tuple[float, float]]) -> float:
    total = sum(weight for weight, _ in levels)
    return sum(weight * value for weight, value in levels) / total if levels else 0.0
