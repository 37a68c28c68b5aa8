"""Where a finished episode can be cut: before its later turns, and inside replies that reason."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from agentrl.core.protocols import Renderer
from agentrl.core.types import Fork, Opening, Trajectory


class Cut(NamedTuple):
    """Behind the first `tokens` of the reply of turn `turn`."""

    turn: int
    tokens: int


BEGINNING = Cut(0, 0)


def cuts(trajectory: Trajectory, renderer: Renderer, ends: str) -> list[Cut]:
    """The places between its parts, in order, its beginning and its end aside: before each turn
    from the second on, and behind the first token that reaches the end of a match of `ends` (a
    regular expression) in a reply."""
    found = []
    for number, turn in enumerate(trajectory.turns):
        ids = turn.reply_ids
        pieces = [renderer.text([token]) for token in ids]
        reached = [0]
        for piece in pieces:
            reached.append(reached[-1] + len(piece))
        stops = [match.end() for match in re.finditer(ends, "".join(pieces))] if ends else []
        inside = {_first(reached, stop) for stop in stops} - {0, len(ids)}
        found += [Cut(number, 0)] * (number > 0) + [Cut(number, a) for a in sorted(inside)]
    return found


def _first(reached: Sequence[int], stop: int) -> int:
    """How many tokens it takes to come as far as `stop`."""
    return next(i for i, length in enumerate(reached) if length >= stop)


def sampled_before(trajectory: Trajectory, cut: Cut) -> int:
    """Sampled tokens before the cut."""
    turns = trajectory.turns[: cut.turn + 1]
    whole = sum(len(turn.action_ids) for turn in turns[: cut.turn])
    last = turns[cut.turn].places if len(turns) > cut.turn else ()
    return whole + sum(place < cut.tokens for place in last)


def onward(
    root: Trajectory, index: int, cut: Cut, words: Sequence[int] = (), budget: int | None = None
) -> tuple[tuple[Trajectory, Fork] | None, Opening]:
    """How an episode is played on from a cut of sibling `index`: its fork, and how its first own
    reply begins, with `words` behind what the root had said in it."""
    fork = (root, Fork(index, cut.turn)) if cut.turn else None
    said = root.turns[cut.turn].reply_ids[: cut.tokens] if cut.tokens else ()
    return fork, Opening(ids=(*said, *words), budget=budget)
