"""Slots of keys and values: what an episode's tokens left in each layer, kept from turn to turn.

A slot holds one sequence from position 0 on. Rows that are computed together lie side by side, so
that attention reads a view of the pool; a slot's content is moved where it has to be. Axes: `N`
layers, `S` slots, `K` key heads, `L` positions, `D` numbers of a head.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import count
from typing import NamedTuple

import torch

from agentrl.engines.rows import GRAIN, Row, whole_grains


class Shape(NamedTuple):
    """What the keys and values of a model look like."""

    layers: int
    heads: int
    queries: int
    """Query heads that share a key head."""
    key_dim: int
    value_dim: int
    dtype: torch.dtype
    device: torch.device

    @property
    def width(self) -> int:
        """Numbers of a head, the larger of the two."""
        return max(self.key_dim, self.value_dim)

    @property
    def token_bytes(self) -> int:
        """Memory of one token in all layers."""
        return 2 * self.layers * self.heads * self.width * self.dtype.itemsize


class Move(NamedTuple):
    """The first `length` positions of slot `source` are to be found in `target`."""

    source: int
    target: int
    length: int


class Pool:
    """Keys and values of all slots, `[2,N,S,K,L,D]`. What no row covers is finite."""

    def __init__(self, shape: Shape, slots: int, length: int) -> None:
        self.shape, self.slots, self.length = shape, slots, length
        size = (2, shape.layers, slots, shape.heads, length, shape.width)
        if shape.device.type == "cpu":
            self.content = torch.frombuffer(
                _untouched(math.prod(size) * shape.dtype.itemsize), dtype=shape.dtype
            ).view(size)
        else:
            self.content = torch.zeros(size, dtype=shape.dtype, device=shape.device)

    def move(self, moves: Sequence[Move]) -> None:
        """All at once: a slot may be source and target."""
        targets: set[int] = set()
        kept = {}
        for move in moves:
            if move.source in targets:  # overwritten before its turn comes
                kept[move.source] = self.content[:, :, move.source, :, : move.length].clone()
            targets.add(move.target)
        for source, target, length in moves:
            old = kept[source] if source in kept else self.content[:, :, source, :, :length]
            self.content[:, :, target, :, :length] = old

    def resized(self, slots: int, length: int, moves: Iterable[Move]) -> Pool:
        """A pool of another size with what `moves` takes over."""
        other = Pool(self.shape, slots, length)
        for source, target, n in moves:
            other.content[:, :, target, :, :n] = self.content[:, :, source, :, :n]
        return other

    def clear(self, slot: int) -> None:
        """Zeros: behind a mask NaN would still spoil sums."""
        self.content[:, :, slot] = 0


def _untouched(size: int) -> mmap.mmap:
    """Zeros that take memory page by page, as they are written; in huge pages one row of a slot
    would take that of many."""
    made = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_NOHUGEPAGE"):
        with suppress(OSError):  # a kernel that has no huge pages
            made.madvise(mmap.MADV_NOHUGEPAGE)
    return made


def fit(
    pool: Pool | None, shape: Shape, capacity: int, active: Sequence[Row], idle: list[Row]
) -> Pool:
    """The pool, or a larger one, with slots for the active rows and for the idle ones; of these, so
    many are dropped, the longest unused first, that it has at most `capacity` tokens. Growing means
    to copy: on a CPU, where room costs nothing, slots are as long as that goes; elsewhere it grows
    to powers of two."""
    idle.sort(key=lambda row: -row.used)
    while True:
        rows = len(active) + len(idle)
        length = whole_grains(max(len(row.ids) for row in (*active, *idle)))
        if rows * length <= capacity or not idle:
            break
        idle.pop()
    if pool is not None and rows <= pool.slots and length <= pool.length:
        return pool
    reach = max(length, *(row.request.reach for row in active if row.request))
    slots = 1 << max(rows - 1, 7).bit_length()
    long = max(1 << (reach - 1).bit_length(), pool.length if pool is not None else 0)
    if shape.device.type == "cpu":
        long = max(capacity // slots // GRAIN * GRAIN, reach)
    sizes = ((slots, long), (rows, long), (rows, reach), (rows, length))
    size = next((s, n) for s, n in sizes if s * n <= capacity or (s, n) == sizes[-1])
    if pool is None:
        return Pool(shape, *size)
    placed = [row for row in (*active, *idle) if row.slot >= 0]
    pool = pool.resized(*size, (Move(row.slot, i, row.filled) for i, row in enumerate(placed)))
    for i, row in enumerate(placed):
        row.slot = i
    return pool


def arrange(regions: Sequence[Sequence[Row]], idle: Sequence[Row]) -> list[Move]:
    """Give the rows of each region neighbouring slots, region after region from slot 0 on; who lies
    in the right region stays. Idle rows give way. Returns what must be moved."""
    places: dict[int, Row] = {}
    first = 0
    for region in regions:
        slots = range(first, first + len(region))
        staying = {row.slot: row for row in region if row.slot in slots}
        coming = (row for row in region if row.slot not in slots)
        places |= staying
        places |= dict(zip((s for s in slots if s not in staying), coming, strict=True))
        first += len(region)
    staying = {row.slot: row for row in idle if row.slot not in places}
    going = [row for row in idle if row.slot in places]
    places |= staying
    free = (slot for slot in count() if slot not in places)
    places |= dict(zip([next(free) for _ in going], going, strict=True))
    moves = [Move(row.slot, slot, row.filled) for slot, row in places.items() if row.slot != slot]
    for slot, row in places.items():
        row.slot = slot
    return [move for move in moves if move.length]


def place(
    pool: Pool,
    regions: Sequence[Sequence[Row]],
    idle: Sequence[Row],
    following: Sequence[tuple[Row, Row]],
) -> None:
    """Put every row in its place, and copy to rows what they share with the leaders they follow:
    pairs of leader and row, whose `filled` says how much."""
    counts = [row.filled for _, row in following]
    for _, row in following:
        row.filled = 0  # nothing of its own to be moved
    pool.move(arrange(regions, idle))
    for (leader, row), filled in zip(following, counts, strict=True):
        row.filled = filled  # one by one: a leader may have followed just before
        pool.move([Move(leader.slot, row.slot, filled)])
