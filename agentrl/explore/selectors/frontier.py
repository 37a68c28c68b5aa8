"""Cells in which something was not tried yet, near where the last visit ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge

from agentrl.core.exploring import Choices
from agentrl.core.graph import Cell
from agentrl.core.registry import register


@register("selector", "frontier")
@dataclass(frozen=True, kw_only=True)
class Frontier:
    """A cell with actions that were not tried. `newest` with one step a visit and actions as listed
    is depth-first search, `oldest` breadth-first. `within` is the adjacency limit of HRAC (Zhang et
    al. 2020, arXiv 2006.11485), by ways that were seen instead of a network."""

    order: Literal["random", "newest", "oldest", "nearest"] = "random"
    """Which of them: any, the one found last or first, or the fewest actions away."""
    within: Annotated[int, Ge(1)] | None = None
    """Actions from where the last visit ended, at most, along what was seen; where no such cell is
    as near, all count. `none` sets no limit."""

    def choose(self, among: Choices) -> Cell | None:
        """One of the cells; None if everything was tried everywhere."""
        cells = [cell for cell in among.cells if cell.is_frontier]
        if not cells:
            return None
        if self.within is not None or self.order == "nearest":
            away = among.graph.distances(among.here, self.within)
            near = [cell for cell in cells if cell.key in away]
            if near and self.order == "nearest":
                return min(near, key=lambda cell: away[cell.key])
            cells = near or cells
        return self._in_order(cells, among)

    def _in_order(self, cells: Sequence[Cell], among: Choices) -> Cell:
        match self.order:
            case "newest":
                return cells[-1]
            case "oldest":
                return cells[0]
            case _:
                return among.rng.choice(cells)
