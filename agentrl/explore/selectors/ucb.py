"""Cells as arms of a bandit that pays for what is new."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge

from agentrl.core.exploring import Choices
from agentrl.core.graph import Cell
from agentrl.core.registry import register


@register("selector", "ucb")
@dataclass(frozen=True, kw_only=True)
class Ucb:
    """The cell with the highest `led / chosen + c sqrt(ln N / chosen)`, where `led` counts its
    choices that led to a new cell and N all choices; one that was never chosen comes first (UCB1,
    Auer et al. 2002, Machine Learning 47)."""

    c: Annotated[float, Ge(0)] = 0.5
    """Weight of the bound (0 or more)."""

    def choose(self, among: Choices) -> Cell | None:
        """One of the cells, equals at random; None if nothing can follow any."""
        cells = [cell for cell in among.cells if not cell.is_terminal]
        if not cells:
            return None
        total = sum(cell.chosen for cell in cells)
        worth = [self.worth(cell, total) for cell in cells]
        best = max(worth)
        return among.rng.choice([c for c, w in zip(cells, worth, strict=True) if w == best])

    def worth(self, cell: Cell, total: int) -> float:
        """The bound of a cell, of `total` choices."""
        if not cell.chosen:
            return math.inf
        return cell.led / cell.chosen + self.c * math.sqrt(math.log(total) / cell.chosen)
