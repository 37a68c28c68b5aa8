"""Credit of episodes, and of steps beside what siblings did in the same state."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Ge, Gt, Le

from agentrl.algo.returns import returns_to_go, turn_rewards
from agentrl.algo.states import Norm, among, by_state, normalised, places_of
from agentrl.core.registry import register
from agentrl.core.types import AdvantageOut, Group, Scored


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
    norm: Norm = "mean"
    """Whether centred values are divided by their deviation."""
    similarity: Annotated[float, Gt(0), Le(1)] = 1.0
    """Least similarity of two keys that count as one state (difflib's ratio; 1: equal)."""
    across_turns: bool = False
    """Take the statistics of episodes over their turns."""

    needs: ClassVar[frozenset[str]] = frozenset({"state_keys"})

    def __call__(self, scored: Scored) -> AdvantageOut:
        """Advantages at turn level. `credit/same_state` is how many turns began in a turn's state
        on average (1: the step's part is dead)."""
        return by_state(scored, self.similarity, self._estimate)

    def _estimate(
        self, group: Group, states: dict[int, list[Hashable]]
    ) -> tuple[list[float] | None, ...]:
        of_turns = {
            i: returns_to_go(turn_rewards(group.trajectories[i]), self.gamma) for i in group.scored
        }
        scores = dict(zip(group.scored, group.values, strict=True))
        pool = [
            score
            for i, score in scores.items()
            for _ in range(len(of_turns[i]) if self.across_turns else 1)
        ]
        episodes = {i: normalised(score, pool, self.norm) for i, score in scores.items()}
        steps = {i: [0.0] * len(returns) for i, returns in of_turns.items()}
        for places in places_of(states).values():
            for (i, k), value in among(of_turns, places, self.norm):
                steps[i][k] = value
        return tuple(
            None if i not in scores else [episodes[i] + self.omega * step for step in steps[i]]
            for i in range(len(group.trajectories))
        )
