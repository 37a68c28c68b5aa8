"""What happened, in words: the lines of an observation that the one before it did not have."""

from __future__ import annotations

from collections.abc import Iterator

from agentrl.core.types import Trajectory


def news(before: str, after: str) -> tuple[str, ...]:
    """New lines in their order, stripped; blank ones are left out."""
    known = {line.strip() for line in before.splitlines()}
    lines = [line.strip() for line in after.splitlines()]
    return tuple(line for line in lines if line and line not in known)


def passages(trajectory: Trajectory) -> Iterator[tuple[str, str]]:
    """What was last heard before each turn, and what the turn was answered."""
    before = trajectory.opening or ""
    for turn in trajectory.turns:
        after = turn.heard or ""
        yield before, after
        before = after
