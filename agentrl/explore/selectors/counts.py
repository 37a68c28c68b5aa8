"""Cells that were seen less often are returned to more often."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Annotated, Literal

from annotated_types import Ge, Le

from agentrl.core.exploring import Choices
from agentrl.core.graph import Cell
from agentrl.core.registry import register

TRIES = 64
"""Draws by rejection before all weights are added up."""


@register("selector", "counts")
@dataclass(frozen=True, kw_only=True)
class CountWeighted:
    """Cells with probability proportional to `sum_a w_a (n_a + 1)^-p_a` over three counts: how
    often a cell was seen, chosen, and chosen since that last led to a new one, plus terms for what
    was not tried and for the score, times a weight of the level (Go-Explore, Ecoffet et al. 2021,
    arXiv 1901.10995). The defaults are the shipped ones: `1 / sqrt(seen + 1)`.
    """

    power: Annotated[float, Ge(0)] = 0.5
    """How fast the weight falls with a count (0 or more)."""
    seen: Annotated[float, Ge(0)] = 1.0
    """Weight of the count of visits."""
    chosen: Annotated[float, Ge(0)] = 0.0
    """Weight of the count of choices."""
    since_new: Annotated[float, Ge(0)] = 0.0
    """Weight of the count of choices that led to nothing new."""
    chosen_power: Annotated[float, Ge(0)] | None = None
    """Power of the count of choices; `none` is `power`."""
    since_new_power: Annotated[float, Ge(0)] | None = None
    """Power of the count of choices that led to nothing new; `none` is `power`."""
    untried: Annotated[float, Ge(0)] = 0.0
    """Weight of each action that was not tried in a cell (the neighbours that a map would lack)."""
    only_untried: bool = False
    """Leave out cells in which everything was tried."""
    score: Annotated[float, Ge(0)] = 0.0
    """Weight over the square root of a cell's rank by score, the highest first."""
    level: Literal["none", "score", "depth"] = "none"
    """What a cell's level is: whole points of its score, or actions from the start."""
    low_level: Annotated[float, Ge(0), Le(1)] = 0.1
    """What each level below the highest is multiplied by (0..1)."""

    def weight(self, cell: Cell) -> float:
        """What a cell's probability is proportional to, rank and level aside; 0 where nothing can
        follow."""
        if not self.follows(cell):
            return 0.0
        terms = (
            (self.seen, cell.seen, self.power),
            (self.chosen, cell.chosen, _or(self.chosen_power, self.power)),
            (self.since_new, cell.since_new, _or(self.since_new_power, self.power)),
        )
        total = sum(w / math.pow(n + 1, power) for w, n, power in terms if w)
        return total + self.untried * max((cell.legal or 0) - len(cell.tried), 0)

    def follows(self, cell: Cell) -> bool:
        """Whether the cell may be chosen at all."""
        return not cell.is_terminal and (not self.only_untried or cell.is_frontier)

    def weights(self, cells: Sequence[Cell]) -> list[float]:
        """The weights of all cells, with rank and level."""
        found = [self.weight(cell) for cell in cells]
        if self.score:
            scores = sorted({cell.score for cell in cells}, reverse=True)
            ranks = {score: rank for rank, score in enumerate(scores, start=1)}
            found = [
                w + self.score / math.sqrt(ranks[cell.score]) if self.follows(cell) else 0.0
                for w, cell in zip(found, cells, strict=True)
            ]
        if self.level != "none":
            levels = [math.floor(c.score) if self.level == "score" else c.depth for c in cells]
            highest = max(levels, default=0)
            low = self.low_level
            found = [w * low ** (highest - at) for w, at in zip(found, levels, strict=True)]
        return found

    def choose(self, among: Choices) -> Cell | None:
        """One of the cells; None if all weights are 0."""
        cells, rng = among.cells, among.rng
        most = self.seen + self.chosen + self.since_new
        is_plain = not self.untried and not self.score and self.level == "none"
        return (self._drawn(cells, rng, most) if is_plain and most else None) or self._exact(
            cells, rng
        )

    def _drawn(self, cells: Sequence[Cell], rng: Random, most: float) -> Cell | None:
        """By rejection: no weight is above `most`."""
        for _ in range(TRIES):
            cell = rng.choice(cells)
            if rng.random() * most < self.weight(cell):
                return cell
        return None

    def _exact(self, cells: Sequence[Cell], rng: Random) -> Cell | None:
        weights = self.weights(cells)
        return rng.choices(cells, weights)[0] if any(weights) else None


def _or(value: float | None, otherwise: float) -> float:
    return otherwise if value is None else value
