"""Rows as one packed tree of tokens, several roots allowed.

A node is a token behind its whole prefix. Rows are sorted, so that nodes numbered in the order of
their first row stand depth-first: the descendants of a node follow it without a gap. Axes: `T`
nodes, `N` distinct (sampled node, temperature), `R` distinct parents of those, `M` sampled
(row, token) pairs in row order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from agentrl.core.errors import DataError
from agentrl.core.types import Row

Ints: TypeAlias = npt.NDArray[np.int64]


class Span(NamedTuple):
    """A chain of nodes that no row leaves: `[start, stop)`, its descendants `[stop, end)`."""

    start: int
    stop: int
    end: int
    parent: int
    """Index of the span that it hangs on, or -1."""


@dataclass(frozen=True, kw_only=True)
class Forest:
    """The packed tree of some rows."""

    ids_T: Ints
    depth_T: Ints
    """Position in the row, counted from 0."""
    parent_T: Ints
    """Node before, -1 for a root."""
    nodes: tuple[Ints, ...]
    """For each row the node of each token."""
    order: tuple[int, ...]
    """The rows, depth-first."""
    spans: tuple[Span, ...]
    """Depth-first."""

    @classmethod
    def of(cls, rows: Sequence[Row]) -> Forest:
        """Sort, then share with the row before what both begin with.

        Rows with different pictures share nothing: the placeholder ids alone do not tell what the
        model sees.
        """
        ids = [np.array(row.ids, dtype=np.int64) for row in rows]
        keys = [(row.images, a.astype(">u4").tobytes()) for row, a in zip(rows, ids, strict=True)]
        order = sorted(range(len(rows)), key=keys.__getitem__)
        nodes: list[Ints] = [np.empty(0, dtype=np.int64)] * len(rows)
        new_ids, depths, parents = [], [], []
        count, before = 0, -1
        for i in order:
            same = before >= 0 and rows[before].images == rows[i].images
            shared = _common(ids[before], ids[i]) if same else 0
            fresh = np.arange(count, count + len(ids[i]) - shared, dtype=np.int64)
            nodes[i] = np.concatenate([nodes[before][:shared], fresh])
            new_ids.append(ids[i][shared:])
            depths.append(np.arange(shared, len(ids[i]), dtype=np.int64))
            parents.append(np.concatenate([[-1], nodes[i][:-1]])[shared:])
            count, before = count + len(fresh), i
        parent_T = np.concatenate(parents)
        return cls(
            ids_T=np.concatenate(new_ids),
            depth_T=np.concatenate(depths),
            parent_T=parent_T,
            nodes=tuple(nodes),
            order=tuple(order),
            spans=_spans(parent_T),
        )

    @property
    def real(self) -> int:
        """Tokens of the rows."""
        return sum(map(len, self.nodes))

    @property
    def unique(self) -> int:
        """Nodes."""
        return len(self.ids_T)

    def path(self, span: int) -> list[int]:
        """The spans from the root to this one, which is left out."""
        found: list[int] = []
        while (span := self.spans[span].parent) >= 0:
            found.insert(0, span)
        return found


def bare(ids: Sequence[int]) -> Row:
    """A row of nothing but tokens, all but the first of them sampled."""
    n = len(ids)
    return Row(
        ids=tuple(ids),
        mask=(False, *(True,) * (n - 1)),
        inherited=(False,) * n,
        sampler_logprobs=(0.0,) * n,
        turn_of=(-1, *(0,) * (n - 1)),
        versions=(-1, *(0,) * (n - 1)),
        trajectory=0,
        group=0,
    )


def _common(a: Ints, b: Ints) -> int:
    """Length of the longest common prefix."""
    length = min(len(a), len(b))
    differs = a[:length] != b[:length]
    return int(differs.argmax()) if differs.any() else length


def _spans(parent_T: Ints) -> tuple[Span, ...]:
    """Cut where a row leaves another, on both sides."""
    count = len(parent_T)
    children_T = np.bincount(parent_T[parent_T >= 0], minlength=count)
    is_first = (parent_T != np.arange(-1, count - 1)) | (parent_T < 0)
    is_first[1:] |= children_T[:-1] > 1
    starts = np.flatnonzero(is_first)
    span_of_T = np.cumsum(is_first) - 1
    above = parent_T[starts]
    parents = np.where(above < 0, -1, span_of_T[above])
    bounds = [int(s) for s in (*starts, count)]
    ends = bounds[1:]
    for s in range(len(starts) - 1, -1, -1):
        if parents[s] >= 0:
            ends[parents[s]] = max(ends[parents[s]], ends[s])
    return tuple(
        Span(start, stop, end, int(parent))
        for (start, stop), end, parent in zip(pairwise(bounds), ends, parents, strict=True)
    )


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Which logits are needed, and whose logprobs they give. `N` is ordered by parent."""

    parents_R: Ints
    """Nodes whose logits are needed, ascending."""
    row_N: Ints
    """Which of those gives this logprob."""
    ids_N: Ints
    temperature_N: npt.NDArray[np.float64]
    place_M: Ints
    """Where in `N` each sampled (row, token) finds its numbers."""

    @cached_property
    def parent_N(self) -> Ints:
        """The node before, ascending."""
        return self.parents_R[self.row_N]

    @classmethod
    def of(cls, rows: Sequence[Row], forest: Forest) -> Wanted:
        """Temperatures are a matter of the pair, so rows of different ones share logits.

        Raises:
            DataError: a row begins with a sampled token, which nothing predicts.
        """
        temperatures = sorted({row.temperature for row in rows})
        node_M, kind_M = [], []
        for row, nodes in zip(rows, forest.nodes, strict=True):
            sampled = np.flatnonzero(np.array(row.mask, dtype=bool))
            if len(sampled) and sampled[0] == 0:
                raise DataError("a row begins with a sampled token: its prompt must not be empty")
            node_M.append(nodes[sampled])
            kind_M.append(np.full(len(sampled), temperatures.index(row.temperature)))
        nodes_M, kinds_M = np.concatenate(node_M), np.concatenate(kind_M)
        triples_M3 = np.stack([forest.parent_T[nodes_M], nodes_M, kinds_M], axis=1)
        triples_N3, place_M = np.unique(triples_M3, axis=0, return_inverse=True)
        parents_R, row_N = np.unique(triples_N3[:, 0], return_inverse=True)
        return cls(
            parents_R=parents_R,
            row_N=row_N,
            ids_N=forest.ids_T[triples_N3[:, 1]],
            temperature_N=np.array(temperatures)[triples_N3[:, 2]],
            place_M=place_M.reshape(-1),
        )


def split(rows: Sequence[Row], budget: int) -> list[list[int]]:
    """Whole trajectories in the order of the tree, cut where the tokens that are new to a
    micro-batch would exceed `budget`; a trajectory that is longer stands alone.

    Siblings stand together, and a prefix is repeated only where a cut goes through it.
    """
    if not rows:
        return []
    forest = Forest.of(rows)
    by_trajectory: dict[tuple[int, int], list[int]] = {}
    for i in forest.order:
        by_trajectory.setdefault((rows[i].group, rows[i].trajectory), []).append(i)
    parts: list[list[int]] = []
    is_held = np.zeros(forest.unique, dtype=bool)
    held = 0
    for trajectory in by_trajectory.values():
        nodes = np.unique(np.concatenate([forest.nodes[i] for i in trajectory]))
        new = int((~is_held[nodes]).sum())
        if not parts or held + new > budget:
            parts.append([])
            is_held[:] = False
            held, new = 0, len(nodes)
        parts[-1].extend(trajectory)
        is_held[nodes] = True
        held += new
    return parts
