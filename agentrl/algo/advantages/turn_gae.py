"""A critic's values, turn by turn: a turn is one action."""

from __future__ import annotations

import math
from dataclasses import dataclass
from math import fsum
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Gt, Le

from agentrl.algo.gae import Episode, episodes_of, gae, ragged
from agentrl.algo.returns import FLOOR
from agentrl.core.registry import register
from agentrl.core.types import AdvantageOut, Level, Scored


@register("advantage", "turn_gae")
@dataclass(frozen=True, kw_only=True)
class TurnGae:
    """GAE over the turns of a trajectory, each worth what the critic says of one token's state;
    every token of a turn gets the turn's advantage (VAGEN, Wang et al. 2025, arXiv 2510.16907, the
    form of its code), whitened over the sampled tokens of the step.

    The critic's target is `A_k + V_k`, at the anchor token alone. Behind a truncation stands the
    critic's value, behind any other end 0. Needs `critic`.
    """

    gamma: Annotated[float, Gt(0), Le(1)] = 1.0
    """Discount of a turn (0..1)."""
    lam: Annotated[float, Ge(0), Le(1)] = 1.0
    """Between one turn's error (0) and whole returns (1)."""
    anchor: Literal["first", "last"] = "first"
    """The token whose value is the turn's: the `first`, before anything of the reply is known, or
    the `last`."""
    whiten: bool = True
    """Mean 0 and deviation 1 over the tokens of the step."""

    needs: ClassVar[frozenset[str]] = frozenset({"values"})

    def __call__(self, scored: Scored) -> AdvantageOut:
        """Advantages at turn level. Raises `DataError` if the step has no values."""
        episodes = [*episodes_of(scored)]
        found = [self._advantages(episode) for episode in episodes]
        targets = [self._targets(*pair) for pair in zip(episodes, found, strict=True)]
        if self.whiten:
            found = _whitened(episodes, found)
        turns = []
        for episode, own in zip(episodes, found, strict=True):
            by_turn = [0.0] * len(_turns(scored, episode))
            for step, value in zip(episode.steps, own, strict=True):
                by_turn[step.turn] = value
            turns.append(by_turn)
        return AdvantageOut(
            values=ragged(scored, episodes, turns),
            level=Level.TURN,
            returns=ragged(scored, episodes, targets),
        )

    def _anchors(self, episode: Episode) -> list[int]:
        return [s.begin if self.anchor == "first" else s.last for s in episode.steps]

    def _advantages(self, episode: Episode) -> list[float]:
        return gae(
            [step.reward for step in episode.steps],
            [episode.values[t] for t in self._anchors(episode)],
            gamma=self.gamma,
            lam=self.lam,
            beyond=episode.beyond,
        )

    def _targets(self, episode: Episode, found: list[float]) -> list[float]:
        targets = [math.nan] * len(episode.values)
        for t, advantage in zip(self._anchors(episode), found, strict=True):
            targets[t] = advantage + episode.values[t]
        return targets


def _turns(scored: Scored, episode: Episode) -> tuple[object, ...]:
    return scored.groups[episode.group].trajectories[episode.trajectory].turns


def _whitened(episodes: list[Episode], found: list[list[float]]) -> list[list[float]]:
    """A turn counts as often as it has tokens."""
    pairs = [
        (step.last - step.begin + 1, value)
        for episode, own in zip(episodes, found, strict=True)
        for step, value in zip(episode.steps, own, strict=True)
    ]
    count = sum(n for n, _ in pairs)
    mean = fsum(n * value for n, value in pairs) / max(count, 1)
    squares = fsum(n * (value - mean) ** 2 for n, value in pairs)
    divisor = math.sqrt(squares / max(count - 1, 1) + FLOOR)
    return [[(value - mean) / divisor for value in own] for own in found]
