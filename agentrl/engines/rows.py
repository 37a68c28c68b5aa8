"""Requests and rows: who asked for what, and which sequence is computed or kept for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from agentrl.core.protocols import SamplingParams

GRAIN = 16
"""Lengths in slots are multiples of this."""


def whole_grains(length: int) -> int:
    """The length, rounded up."""
    return -(-length // GRAIN) * GRAIN


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """How many ids two lists share from the start."""
    n = min(len(a), len(b))
    if a[:n] == b[:n]:
        return n
    return next(i for i in range(n) if a[i] != b[i])


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

    def add(self, logprob: float, version: int) -> None:
        """A token was sampled."""
        self.logprobs.append(logprob)
        if not self.versions or self.versions[-1][0] != version:
            self.versions.append((version, 0))
        self.versions[-1] = (version, self.versions[-1][1] + 1)


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


@dataclass(kw_only=True)
class Stats:
    """What an engine did since it was started, in tokens unless the name says otherwise."""

    steps: int = 0
    """Forward passes."""
    prefilled: int = 0
    """Computed as part of a prompt."""
    decoded: int = 0
    """Computed after they were sampled."""
    sampled: int = 0
    reused: int = 0
    """Found in the slot of the episode's last turn."""
    copied: int = 0
    """Copied from another row of the group."""
    evicted: int = 0
    """Idle rows that gave way to others."""
