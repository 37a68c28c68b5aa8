"""Credit of steps by how much the value of the state rose, in the graph of what siblings did."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from statistics import fmean
from typing import Annotated, ClassVar

from annotated_types import Ge, Gt, Le

from agentrl.algo.states import Norm, among, by_state, episode_part, places_of
from agentrl.core.registry import register
from agentrl.core.types import AdvantageOut, Group, Scored


@register("advantage", "g2po")
@dataclass(frozen=True, kw_only=True)
class GroupGraph:
    """`A_E + omega (A_N + A_G)` of each turn: the episode's score normalised in its group; `V(s')`,
    the value of the state that the turn led to, normalised among all turns of the group that began
    in the same state; and the gain `V(s') - V(s)`, normalised among all turns of the group (G2PO,
    Wang et al. 2026, arXiv 2606.22995, as its released code has it).

    `V(s)` is the mean of `gamma^(K - k) R` over the turns `k` of `K`, of all siblings, that began
    in `s`; behind the last turn it is the episode's score `R`. The code's penalty for invalid
    actions is left out.
    """

    gamma: Annotated[float, Gt(0), Le(1)] = 0.95
    """Discount of a turn (0..1)."""
    omega: Annotated[float, Ge(0)] = 1.0
    """Weight of the step's parts (0 or more)."""
    norm: Norm = "mean"
    """Whether centred values are divided by their deviation, on all parts."""
    similarity: Annotated[float, Gt(0), Le(1)] = 1.0
    """Least similarity of two keys that count as one state (difflib's ratio; 1: equal)."""

    needs: ClassVar[frozenset[str]] = frozenset({"state_keys"})

    def __call__(self, scored: Scored) -> AdvantageOut:
        """Advantages at turn level. `credit/same_state` is how many turns began in a turn's state
        on average (1: `V` is the episode's own return)."""
        return by_state(scored, self.similarity, self._estimate)

    def _estimate(
        self, group: Group, states: dict[int, list[Hashable]]
    ) -> tuple[list[float] | None, ...]:
        scores = dict(zip(group.scored, group.values, strict=True))
        together = places_of(states)
        worth = {
            state: fmean(self.gamma ** (len(states[i]) - k) * scores[i] for i, k in places)
            for state, places in together.items()
        }
        after = {
            i: [*(worth[state] for state in own[1:]), scores[i]] if own else []
            for i, own in states.items()
        }
        gains = {
            i: [there - worth[here] for here, there in zip(own, after[i], strict=True)]
            for i, own in states.items()
        }
        episodes = episode_part(group, self.norm)
        found = {i: [episodes[i]] * len(own) for i, own in states.items()}
        every = [place for places in together.values() for place in places]
        parts = [among(after, places, self.norm) for places in together.values()]
        for part in (*parts, among(gains, every, self.norm)):
            for (i, k), value in part:
                found[i][k] += self.omega * value
        return tuple(found.get(i) for i in range(len(group.trajectories)))
