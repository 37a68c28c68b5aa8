"""Cells whose neighbourhood among all that was seen is thin."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Annotated
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
from annotated_types import Ge, Gt, Lt

from agentrl.core.exploring import Choices
from agentrl.core.graph import Cell, StateGraph
from agentrl.core.registry import register
from agentrl.explore.embedding import embed


@dataclass(slots=True)
class Known:
    """What was worked out for a graph when it had `cells` cells."""

    cells: int
    away: dict[str, float]


@register("selector", "latent")
@dataclass(frozen=True, kw_only=True)
class Latent:
    """Cells by rank: rank r (1 is the thinnest neighbourhood) comes with probability proportional
    to `p (1 - p)^(r - 1)`, where thin means far from the k-th nearest of what the env showed
    (Latent Go-Explore, Gallouedec and Dellandrea 2023, arXiv 2208.14928). Hashed n-grams stand for
    the learned encoder, and distances are worked out again when the cells are a tenth more."""

    p: Annotated[float, Gt(0), Lt(1)] = 0.005
    """Of the geometric distribution; near 0 chooses evenly, near 1 the thinnest."""
    k: Annotated[int, Ge(1)] | None = None
    """Which neighbour; `none` is a tenth of the cells, 20 at most."""
    _known: WeakKeyDictionary[StateGraph, Known] = field(
        default_factory=WeakKeyDictionary, init=False, repr=False, compare=False
    )

    def choose(self, among: Choices) -> Cell | None:
        """One of the cells; None if nothing can follow any."""
        cells = [cell for cell in among.cells if not cell.is_terminal]
        if not cells:
            return None
        away = self._away(among.graph)
        ranked = sorted(cells, key=lambda cell: -away.get(cell.key, math.inf))
        return ranked[rank(self.p, len(ranked), among.rng) - 1]

    def _away(self, graph: StateGraph) -> dict[str, float]:
        known = self._known.get(graph)
        if known is None or len(graph) > 1.1 * known.cells:
            keys = list(graph.cells)
            shown = np.stack([embed(cell.text or key) for key, cell in graph.cells.items()])
            known = Known(len(keys), dict(zip(keys, neighbour(shown, self.k), strict=True)))
            self._known[graph] = known
        return known.away


def neighbour(points: npt.NDArray[np.float32], k: int | None = None) -> list[float]:
    """The distance of each of `[N, D]` points to its k-th nearest other; k is N / 10, 20 at most,
    where it is not given, and never more than there are. 0 for a point alone."""
    n = len(points)
    if n < 2:
        return [0.0] * n
    k = min(max(min(20, n // 10) if k is None else k, 1), n - 1)
    squares = (points * points).sum(1)
    square = squares[:, None] + squares[None, :] - 2 * points @ points.T
    np.fill_diagonal(square, -1.0)  # oneself is first
    nearest = np.partition(square, k, axis=1)[:, k]
    return [float(d) for d in np.sqrt(np.maximum(nearest, 0.0))]


def rank(p: float, n: int, rng: Random) -> int:
    """1 to n, geometric and cut off at n."""
    whole = -math.expm1(n * math.log1p(-p))
    return min(n, 1 + int(math.log1p(-rng.random() * whole) / math.log1p(-p)))


def lighten(points: Sequence[Sequence[float]], least: float) -> list[int]:
    """Waypoints `[N, D]` to a goal, the last: indices of those kept when, from the goal backwards,
    one that is nearer than `least` to the last kept one is dropped."""
    kept = [len(points) - 1] if points else []
    for i in range(len(points) - 2, -1, -1):
        if math.dist(points[i], points[kept[-1]]) >= least:
            kept.append(i)
    return kept[::-1]
