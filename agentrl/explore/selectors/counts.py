"""Cells that were seen less often are returned to more often."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Annotated

from annotated_types import Ge

from agentrl.core.graph import Cell
from agentrl.core.registry import register

TRIES = 64
"""Draws by rejection before all weights are added up."""


@register("selector", "counts")
@dataclass(frozen=True, kw_only=True)
class CountWeighted:
    """Cells with probability proportional to `sum_a w_a (n_a + 1)^-power` over three counts: how
    often a cell was seen, chosen, and chosen since that last led to a new one (Go-Explore, Ecoffet
    et al. 2021, arXiv 1901.10995). The defaults are the shipped ones: `1 / sqrt(seen + 1)`.
    """

    power: Annotated[float, Ge(0)] = 0.5
    """How fast the weight falls with a count (0 or more)."""
    seen: Annotated[float, Ge(0)] = 1.0
    """Weight of the count of visits."""
    chosen: Annotated[float, Ge(0)] = 0.0
    """Weight of the count of choices."""
    since_new: Annotated[float, Ge(0)] = 0.0
    """Weight of the count of choices that led to nothing new."""

    def weight(self, cell: Cell) -> float:
        """What a cell's probability is proportional to; 0 where nothing can follow."""
        if cell.is_terminal:
            return 0.0
        weights = self.seen, self.chosen, self.since_new
        counts = cell.seen, cell.chosen, cell.since_new
        parts = zip(weights, counts, strict=True)
        return sum(w / math.pow(n + 1, self.power) for w, n in parts if w)

    def choose(self, cells: Sequence[Cell], rng: Random) -> Cell | None:
        """One of the cells; None if all weights are 0."""
        most = self.seen + self.chosen + self.since_new
        for _ in range(TRIES if most > 0 else 0):
            cell = rng.choice(cells)
            if rng.random() * most < self.weight(cell):
                return cell
        weights = [self.weight(cell) for cell in cells]
        return rng.choices(cells, weights)[0] if any(weights) else None
