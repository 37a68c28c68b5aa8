"""A way to a success, tidied by trying: without what it can do without, in one order.

Exploring finds a way with detours, and in an order that chance chose. What is learned from such
ways of several tasks contradicts itself: one ticks a box and then types, another types first. Each
action is left out once and the rest played; then neighbours are swapped where that puts them into
the order of their texts. What still succeeds is kept. (Omissions one at a time are the last stage
of delta debugging, Zeller and Hildebrandt 2002.)
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from agentrl.core.graph import as_text
from agentrl.core.types import Action

Plays = Callable[[tuple[Action, ...]], Awaitable[bool]]
"""Actions from the task's start -> whether they end in a success."""


async def tidied(way: Sequence[Action], plays: Plays) -> tuple[Action, ...]:
    """The way as short and as sorted as single omissions and swaps of neighbours make it.

    Args:
        way: actions from the start to a success.
        plays: tries actions; it is asked at most once for the same ones.
    """
    tried: dict[tuple[str, ...], bool] = {tuple(map(as_text, way)): True}

    async def succeeds(actions: tuple[Action, ...]) -> bool:
        texts = tuple(map(as_text, actions))
        if texts not in tried:
            tried[texts] = await plays(actions)
        return tried[texts]

    kept = await _shortened(tuple(way), succeeds)
    return await _sorted(kept, succeeds)


async def _shortened(way: tuple[Action, ...], succeeds: Plays) -> tuple[Action, ...]:
    """Without each action that was not needed when its turn came; later ones are tried first."""
    for at in reversed(range(len(way))):
        without = way[:at] + way[at + 1 :]
        if without and await succeeds(without):
            way = without
    return way


async def _sorted(way: tuple[Action, ...], succeeds: Plays) -> tuple[Action, ...]:
    """No two neighbours can be swapped into the order of their texts."""
    at = 0
    while at < len(way) - 1:
        first, second = way[at], way[at + 1]
        swapped = (*way[:at], second, first, *way[at + 2 :])
        if as_text(second) < as_text(first) and await succeeds(swapped):
            way, at = swapped, max(at - 2, -1)
        at += 1
    return way
