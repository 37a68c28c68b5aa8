"""Group-relative advantages that spare the tokens which good and bad siblings have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Annotated

from annotated_types import Ge

from agentrl.core.errors import DataError
from agentrl.core.protocols import Advantage
from agentrl.core.registry import register
from agentrl.core.shapes import DefaultPart, Slot
from agentrl.core.types import AdvantageOut, Level, Scored, Trajectory


@register("advantage", "gtpo_conflict")
@dataclass(frozen=True, kw_only=True)
class ConflictAware:
    """`(A_i - c H_i) d_it`, and 0 where an episode's mean entropy `H_i` is above `most_entropy`
    (GTPO, Simoni et al. 2025, arXiv 2508.03772).

    `d` is 1 but on conflicts: the longest prefix and suffix of tokens that a sibling with A > 0 and
    one with A < 0 both have at that place, counted from the beginning and from the end. There it is
    `raise_to` where A > 0 and 0 where A < 0. The released code squares `raise_to` on tokens of both
    runs, and divides a row by its number of conflicts; this does neither.
    """

    of: Annotated[Advantage, Slot("advantage")] = field(
        default_factory=DefaultPart("advantage", "grpo")
    )
    """The estimator, one number for each episode."""
    raise_to: Annotated[float, Ge(0)] = 2.0
    """Factor of a conflict token in a good episode (0 or more)."""
    entropy_coef: Annotated[float, Ge(0)] = 0.1
    """`c`: what a nat of mean entropy takes from the advantage (0 or more)."""
    most_entropy: Annotated[float, Ge(0)] = 0.7
    """Episodes with a higher mean entropy have no advantage (nats)."""

    @property
    def needs(self) -> frozenset[str]:
        """Entropies, and what the estimator needs."""
        return self.of.needs | {"entropies"}

    def __call__(self, scored: Scored) -> AdvantageOut:
        """Advantages at token level.

        Raises:
            DataError: the estimator's values are not one for each episode.
        """
        assert scored.entropies is not None  # needs
        plain = self.of(scored)
        if plain.level is not Level.TRAJECTORY:
            raise DataError(
                f"gtpo_conflict.of: expected one advantage for each episode, and "
                f"{type(self.of).__name__} gives one for each {plain.level}; choose another"
            )
        values = []
        for group, values_G, entropies_G in zip(
            scored.groups, plain.values, scored.entropies, strict=True
        ):
            signs = [value if isinstance(value, float) else 0.0 for value in values_G]
            ids = [tokens_of(t) for t in group.trajectories]
            runs = conflict_runs(ids, signs)
            values.append(
                tuple(
                    self._tokens(value, run, entropies) if isinstance(value, float) else None
                    for value, run, entropies in zip(values_G, runs, entropies_G, strict=True)
                )
            )
        return AdvantageOut(values=tuple(values), level=Level.TOKEN)

    def _tokens(self, value: float, run: range, entropies: Sequence[float]) -> list[float]:
        count = len(entropies)
        entropy = fmean(entropies) if entropies else 0.0
        if value == 0.0 or entropy > self.most_entropy:
            return [0.0] * count
        less = value - self.entropy_coef * entropy
        raised = less * (self.raise_to if value > 0 else 0.0)
        inside = range(run.start, max(run.start, run.stop))
        ends = [raised] * inside.start, [raised] * (count - inside.stop)
        return [*ends[0], *[less] * len(inside), *ends[1]]


def tokens_of(trajectory: Trajectory) -> list[int]:
    """Sampled ids in turn order."""
    return [token for turn in trajectory.turns for token in turn.action_ids]


def conflict_runs(ids: Sequence[Sequence[int]], signs: Sequence[float]) -> list[range]:
    """For each sibling the places between its prefix and its suffix of conflicts, `range(first,
    last)`; everything outside is in conflict. Siblings with sign 0 take no part.

    Two siblings that agree from the beginning to the end leave nothing between.
    """
    firsts, lasts = _runs(ids, signs), _runs([own[::-1] for own in ids], signs)
    return [
        range(len(own)) if sign == 0.0 else range(first, len(own) - last)
        for own, sign, first, last in zip(ids, signs, firsts, lasts, strict=True)
    ]


def _runs(ids: Sequence[Sequence[int]], signs: Sequence[float]) -> list[int]:
    """How many places in a row, from the first, are in conflict, for each sibling: looked at no
    further than somebody's run goes."""
    found = [0] * len(ids)
    running = [i for i, sign in enumerate(signs) if sign != 0.0]
    place = 0
    while running:
        here = [
            (own[place], sign) for own, sign in zip(ids, signs, strict=True) if place < len(own)
        ]
        shared = {t for t, sign in here if sign > 0} & {t for t, sign in here if sign < 0}
        running = [i for i in running if place < len(ids[i]) and ids[i][place] in shared]
        place += 1
        for i in running:
            found[i] = place
    return found
