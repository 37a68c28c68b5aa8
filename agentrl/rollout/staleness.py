"""Which groups may be begun, which must be trained on next: the books of rollouts that run ahead.

Staleness is the trainer's version when a group is trained on, less the oldest version of any of its
sampled tokens. No clock and no randomness here: whatever the latencies, groups that are waited for
when `ready` says so never exceed the bound.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal


@dataclass(kw_only=True)
class Ledger:
    """Groups by number: those that are out (being played) and those that are back (complete).

    With `n = per_step` and `m = max_staleness`, at most `(version + m + 1) n` groups are admitted
    since the run began. Let `U(t)` count groups not trained on yet whose oldest version is at most
    `t - m`: by the end of step `t` all of them must be. Admission gives `U(t) <= (t - s + 1) n` for
    every `t` of a step `s`, and a step that takes at least `U(t) - (t - s) n` of them keeps it so.
    """

    per_step: int
    max_staleness: int
    late: Literal["wait", "drop"] = "wait"
    total: int
    """Groups that the run trains on in all: no more are admitted."""
    version: int = 0
    """The trainer's."""
    next: int = 0
    """Number of the next group that is admitted."""
    dropped: int = 0
    """Groups that were too late, since the run began."""
    out: dict[int, int] = field(default_factory=dict)
    """Number -> version when it was admitted: its tokens are no older."""
    back: dict[int, int] = field(default_factory=dict)
    """Number -> oldest version of its tokens, in the order of completion."""

    def admit(self) -> Iterator[int]:
        """Numbers of the groups that are begun now."""
        limit = min((self.version + self.max_staleness + 1) * self.per_step, self.total)
        while self.next - self.dropped < limit:
            number = self.next
            self.next += 1
            self.out[number] = self.version
            yield number

    def complete(self, number: int, oldest: int) -> None:
        """The group is back."""
        self.back[number] = max(self.out.pop(number), oldest)

    def drop_late(self) -> list[int]:
        """Under `late="drop"`, forget the groups that would exceed the bound now; their numbers."""
        if self.late != "drop":
            return []
        oldest = self.version - self.max_staleness
        late = [n for held in (self.out, self.back) for n, v in held.items() if v < oldest]
        for number in late:
            self.out.pop(number, None)
            self.back.pop(number, None)
        self.dropped += len(late)
        return late

    def must(self, step: int) -> int:
        """How many groups with tokens as old as `step - max_staleness` this step has to take."""
        limit = step - self.max_staleness
        due = sum(v <= limit for held in (self.out, self.back) for v in held.values())
        return max(0, due - (step - self.version) * self.per_step)

    @property
    def ready(self) -> bool:
        """A step's groups are back, and those among them that may wait no longer."""
        if len(self.back) < self.per_step:
            return False
        if self.late == "drop":
            return True
        return all(
            sum(v <= step - self.max_staleness for v in self.back.values()) >= self.must(step)
            for step in range(self.version, self.version + self.max_staleness + 1)
        )

    def take(self) -> list[int]:
        """The step's groups, oldest tokens first, then in the order of completion."""
        order = sorted(self.back, key=self.back.__getitem__)  # stable
        taken = order[: self.per_step]
        for number in taken:
            del self.back[number]
        return taken
