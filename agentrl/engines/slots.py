"""Slots of keys and values: what an episode's tokens left in each layer, kept from turn to turn.

A slot holds one sequence from position 0 on. Rows that are computed together lie side by side, so
that attention reads a view of the pool; a slot's content is moved where it has to be. Axes: `N`
layers, `S` slots, `K` key heads, `L` positions, `D` numbers of a head.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch

from agentrl.core.protocols import SamplingParams

GRAIN = 16
"""Lengths of the pool are multiples of this."""


def whole_grains(length: int) -> int:
    """The length, rounded up."""
    return -(-length // GRAIN) * GRAIN


def doubled(count: int, least: int) -> int:
    """The smallest of `least`, twice that, four times that ... that is at least `count`."""
    while least < count:
        least *= 2
    return least


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
    def token_bytes(self) -> int:
        """Memory of one token in all layers."""
        return self.layers * self.heads * (self.key_dim + self.value_dim) * self.dtype.itemsize


class Move(NamedTuple):
    """The first `length` positions of slot `source` are to be found in `target`."""

    source: int
    target: int
    length: int


class Pool:
    """Keys `[N,S,K,L,D]` and values of all slots. What no row covers is finite."""

    def __init__(self, shape: Shape, slots: int, length: int) -> None:
        self.shape, self.slots, self.length = shape, slots, length
        size = (shape.layers, slots, shape.heads, length)
        like = {"dtype": shape.dtype, "device": shape.device}
        self.keys = torch.zeros(*size, shape.key_dim, **like)  # type: ignore[call-overload]
        self.values = torch.zeros(*size, shape.value_dim, **like)  # type: ignore[call-overload]

    def move(self, moves: Sequence[Move]) -> None:
        """All at once: a slot may be source and target."""
        for pool in (self.keys, self.values):
            kept = [pool[:, m.source, :, : m.length].clone() for m in moves]
            for move, content in zip(moves, kept, strict=True):
                pool[:, move.target, :, : move.length] = content

    def resized(self, slots: int, length: int, moves: Sequence[Move]) -> Pool:
        """A pool of another size with what `moves` takes over."""
        other = Pool(self.shape, slots, length)
        for old, new in ((self.keys, other.keys), (self.values, other.values)):
            for move in moves:
                new[:, move.target, :, : move.length] = old[:, move.source, :, : move.length]
        return other

    def clear(self, slot: int) -> None:
        """Zeros: behind a mask NaN would still spoil sums."""
        self.keys[:, slot] = 0
        self.values[:, slot] = 0


@dataclass(eq=False, slots=True, kw_only=True)
class Request:
    """One call: what was asked, and what was sampled so far."""

    prompt: list[int]
    params: SamplingParams
    episode: int
    group: int
    logprobs: list[float] = field(default_factory=list)
    versions: list[tuple[int, int]] = field(default_factory=list)
    is_given_up: bool = False
    """Nobody waits for the answer: its row is free at the next step."""

    @property
    def reach(self) -> int:
        """Positions that it may come to need."""
        return whole_grains(len(self.prompt) + self.params.max_tokens)


@dataclass(eq=False, slots=True)
class Row:
    """A sequence and its slot. While it is sampled, ids beyond `filled` are still to be computed;
    an idle row keeps what the next turn may go on from."""

    request: Request | None
    episode: int
    group: int
    ids: list[int]
    filled: int = 0
    """How many of `ids` have their keys and values in the slot."""
    slot: int = -1
    leader: Row | None = None
    """Another row whose slot holds, or will hold, a prefix of this one."""
    shared: int = 0
    """Length of that prefix."""
    used: int = 0
    """The step that used it last."""
    count: int = 0
    """How many ids this step computes."""

    @property
    def pending(self) -> int:
        """Ids that are to be computed before the next one is drawn."""
        return len(self.ids) - self.filled


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """How many ids two lists share from the start."""
    n = min(len(a), len(b))
    if a[:n] == b[:n]:
        return n
    return next(i for i in range(n) if a[i] != b[i])


def arrange(regions: Sequence[Sequence[Row]], idle: Iterable[Row]) -> list[Move]:
    """Give the rows of each region neighbouring slots, region after region from slot 0 on; who lies
    in the right region stays. Idle rows give way. Returns what must be moved."""
    target: dict[int, Row] = {}
    first, homeless = 0, []
    for region in regions:
        slots = range(first, first + len(region))
        staying = {row.slot: row for row in region if row.slot in slots}
        target |= staying
        coming = (row for row in region if row.slot not in slots)
        target |= dict(zip((s for s in slots if s not in staying), coming, strict=True))
        first += len(region)
    for row in idle:
        if row.slot in target or row.slot < 0:
            homeless.append(row)
        else:
            target[row.slot] = row
    free = (slot for slot in range(len(target) + len(homeless)) if slot not in target)
    target |= dict(zip(list(free), homeless, strict=False))
    moves = []
    for slot, row in target.items():
        if row.slot != slot:
            if row.filled:
                moves.append(Move(row.slot, slot, row.filled))
            row.slot = slot
    return moves
