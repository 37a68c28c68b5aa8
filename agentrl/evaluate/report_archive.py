"""What exploring found, for the report: the archive's graphs, how they grew, and when tasks were
solved."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import cast

from agentrl.core.errors import DataError
from agentrl.core.graph import Cell, StateGraph
from agentrl.core.types import Json
from agentrl.explore.archive import Archive

ARCHIVE_FILE = "archive.sqlite"
TOLD_FILE = "explore.json"
SHOWN = 3
"""Graphs that are drawn."""
MOST_CELLS = 300
"""Cells of a picture; of more, those on the way to a success and those returned to come first."""
MOST_POINTS = 200
"""Points of a curve."""
LOOKED_AT = 60
"""Tasks among which the graphs are chosen."""


def pack_archive(folder: Path) -> Json:
    """All that the report shows of a run's exploring; None where nothing was explored.

    Raises:
        DataError: the archive cannot be read.
    """
    path = folder / ARCHIVE_FILE
    if not path.exists():
        return None
    told: dict[str, Json] = {}
    if (folder / TOLD_FILE).exists():
        try:
            told = json.loads((folder / TOLD_FILE).read_text(encoding="utf-8"))
        except ValueError as error:
            raise DataError(f"{folder / TOLD_FILE} is not JSON: {error}") from error
    with Archive(path) as archive:
        names = archive.tasks()
        graphs = {
            name: graph for name in names[:LOOKED_AT] if (graph := archive.load(name)) is not None
        }
        counts = archive.counts()
    shown = [{"task": name, **_drawn(graphs[name])} for name in _chosen(graphs)]
    facts = {**counts, "tasks": len(names)}
    return cast("Json", {"counts": facts, "told": told, "graphs": shown, "solved": _solved(told)})


def _chosen(graphs: Mapping[str, StateGraph]) -> list[str]:
    """The solved task whose first success took the median number of steps, the one that took most,
    and the largest of those that were not solved."""
    first = {name: at for name, graph in graphs.items() if (at := first_success(graph)) is not None}
    order = sorted(first, key=lambda name: (first[name], name))
    unsolved = sorted(set(graphs) - set(first), key=lambda name: (-len(graphs[name]), name))
    found = [order[len(order) // 2], order[-1]] if order else []
    return list(dict.fromkeys([*found, *unsolved]))[:SHOWN]


def first_success(graph: StateGraph) -> int | None:
    """Env steps until the first visit that ended in a success."""
    return next((visit.step for visit in graph.visits if visit.is_success), None)


def success_way(graph: StateGraph) -> list[str]:
    """Keys of the cells on the shortest way to a success, the start first; empty without one."""
    away = graph.distances(graph.start.key)
    goals = [c.key for c in graph.cells.values() if c.is_success and c.key in away]
    if not goals:
        return []
    way = [min(goals, key=lambda key: away[key])]
    leading: dict[str, list[str]] = {}
    for key in graph.cells:
        for there, _ in graph.neighbours(key):
            leading.setdefault(there, []).append(key)
    while away[way[-1]]:
        nearer = away[way[-1]] - 1
        way.append(next(key for key in leading[way[-1]] if away.get(key) == nearer))
    return way[::-1]


def _drawn(graph: StateGraph) -> dict[str, Json]:
    """Cells with their places, edges, and curves."""
    way, away = success_way(graph), graph.distances(graph.start.key)
    places = {key: i for i, key in enumerate(way)}
    kept = sorted(
        graph.cells.values(),
        key=lambda cell: (cell.key not in places, not cell.chosen, -cell.seen, cell.found),
    )[:MOST_CELLS]
    away |= {cell.key: cell.depth for cell in kept if cell.key not in away}
    rows = _rows(graph, kept, away)
    numbers = {cell.key: n for n, cell in enumerate(kept)}
    edges = [
        [numbers[cell.key], numbers[there]]
        for cell in kept
        for there in dict.fromkeys(key for key, _ in graph.neighbours(cell.key))
        if there in numbers and away[there] == away[cell.key] + 1
    ]
    return {
        "cells": [_told(cell, away[cell.key], rows[cell.key]) for cell in kept],
        "edges": cast("Json", edges),
        "way": [numbers[key] for key in way if key in numbers],
        "of": len(graph),
        "first": first_success(graph),
        "growth": _growth(graph),
    }


def _told(cell: Cell, away: int, row: float) -> Json:
    """Distance, row (0..1), visits, choices, steps when it was found, kind, what was shown."""
    kind = "success" if cell.is_success else "end" if cell.is_terminal else "cell"
    if kind == "cell" and not cell.is_frontier:
        kind = "spent"
    return [away, row, cell.seen, cell.chosen, cell.found, kind, cell.text or cell.key]


def _rows(graph: StateGraph, cells: Sequence[Cell], away: Mapping[str, int]) -> dict[str, float]:
    """A row (0..1) for each cell: in each column by the median row of the neighbours one action
    before, evenly apart."""
    before: dict[str, list[str]] = {}
    for cell in cells:
        for there, _ in graph.neighbours(cell.key):
            if away.get(there) == away[cell.key] + 1:
                before.setdefault(there, []).append(cell.key)
    by_depth: dict[int, list[str]] = {}
    for cell in cells:
        by_depth.setdefault(away[cell.key], []).append(cell.key)
    rows: dict[str, float] = {}
    for depth in sorted(by_depth):
        keys = by_depth[depth]
        wanted = {
            key: median(rows[b] for b in known) if (known := _placed(before, rows, key)) else 0.5
            for key in keys
        }
        for n, key in enumerate(sorted(keys, key=lambda key: (wanted[key], key))):
            rows[key] = (n + 0.5) / len(keys)
    return rows


def _placed(before: Mapping[str, Sequence[str]], rows: Mapping[str, float], key: str) -> list[str]:
    return [one for one in before.get(key, ()) if one in rows]


def _growth(graph: StateGraph) -> Json:
    """Steps, cells and frontier after each visit, thinned."""
    stride = max(1, math.ceil(len(graph.visits) / MOST_POINTS))
    last = graph.visits[-1:]
    visits = [*graph.visits[:-1:stride], *last]
    return {
        "x": [visit.step for visit in visits],
        "cells": [visit.cells for visit in visits],
        "frontier": [visit.frontier for visit in visits],
    }


def _solved(told: Mapping[str, Json]) -> Json:
    """Share of tasks solved within so many env steps of their own."""
    first = told.get("first")
    if not isinstance(first, list) or not first:
        return None
    steps = sorted(at for at in first if isinstance(at, int))
    return {
        "x": [0, *steps],
        "y": [n / len(first) for n in range(len(steps) + 1)],
        "tasks": len(first),
    }
