"""Credit of steps by how near to success they led, in the graph of what all siblings did."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Ge, Gt, Le

from agentrl.algo.states import Norm, among, by_state, episode_part, places_of
from agentrl.core.graph import steps_to
from agentrl.core.registry import register
from agentrl.core.types import AdvantageOut, Group, Scored

GOAL = "success"
"""Where the last turn of a successful episode leads."""


@register("advantage", "graphgpo")
@dataclass(frozen=True, kw_only=True)
class GraphDistance:
    """`A_E + omega A_S` of each turn: the episode's score normalised in its group, and
    `gamma^d(s')` normalised among all turns of the group that began in the same state, where
    `d(s')` is the fewest steps from the state that the turn led to until a success, over the
    transitions of all siblings (GraphGPO, Cheng et al. 2026, arXiv 2605.26684).

    From where no success was reached, `d` is one more than the farthest state from which one was;
    so it is behind the last turn of an episode that failed, whose state nobody named. The released
    code multiplies by 10, the reward of a success there.
    """

    gamma: Annotated[float, Gt(0), Le(1)] = 0.95
    """Discount of a step of the distance (0..1)."""
    omega: Annotated[float, Ge(0)] = 1.0
    """Weight of the step's part (0 or more)."""
    episode: Annotated[float, Ge(0)] = 1.0
    """Weight of the episode's part (0 or more)."""
    norm: Norm = "mean_std"
    """Whether centred values are divided by their deviation, on both parts."""
    similarity: Annotated[float, Gt(0), Le(1)] = 1.0
    """Least similarity of two keys that count as one state (difflib's ratio; 1: equal)."""

    needs: ClassVar[frozenset[str]] = frozenset({"state_keys"})

    def __call__(self, scored: Scored) -> AdvantageOut:
        """Advantages at turn level. `credit/same_state` is how many turns began in a turn's state
        on average (1: the step's part is dead)."""
        return by_state(scored, self.similarity, self._estimate)

    def _estimate(
        self, group: Group, states: dict[int, list[Hashable]]
    ) -> tuple[list[float] | None, ...]:
        after = {i: _after(own, bool(group.trajectories[i].success)) for i, own in states.items()}
        edges = [pair for i in states for pair in zip(states[i], after[i], strict=True)]
        distances = steps_to(GOAL, edges)
        lost = max(distances.values(), default=0) + 1
        worth = {
            i: [self.gamma ** distances.get(state, lost) for state in own]
            for i, own in after.items()
        }
        episodes = episode_part(group, self.norm)
        found = {i: [self.episode * episodes[i]] * len(own) for i, own in states.items()}
        for places in places_of(states).values():
            for (i, k), value in among(worth, places, self.norm):
                found[i][k] += self.omega * value
        return tuple(found.get(i) for i in range(len(group.trajectories)))


def _after(states: list[Hashable], success: bool) -> list[Hashable]:
    """The state that each turn led to; None behind a failure."""
    return [*states[1:], GOAL if success else None] if states else []
