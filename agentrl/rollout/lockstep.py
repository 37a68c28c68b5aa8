"""Sampling in step: the engine advances only when every live episode has asked or ended.

Batches then hold the same requests in the same order in every run, whatever the timing of the envs,
so that a run repeats bit for bit. The price is that everybody waits for the slowest env.
"""

from __future__ import annotations

import asyncio


class Lockstep:
    """A barrier round an engine's calls; episodes pass it in the order of their numbers."""

    def __init__(self) -> None:
        self._live: set[int] = set()
        self._waiting: dict[int, asyncio.Future[None]] = {}

    def enter(self, episode: int) -> None:
        """The episode lives: nobody is sampled until it asks or leaves."""
        self._live.add(episode)

    def leave(self, episode: int) -> None:
        """The episode is over."""
        self._live.discard(episode)
        self._waiting.pop(episode, None)
        self._release()

    async def wait(self, episode: int) -> None:
        """Return when every live episode waits too. Episodes that never entered pass at once."""
        if episode not in self._live:
            return
        loop = asyncio.get_running_loop()
        gate: asyncio.Future[None] = loop.create_future()
        self._waiting[episode] = gate
        loop.call_soon(self._release)  # not now: whoever asks last would pass before the others
        await gate

    def _release(self) -> None:
        if self._waiting and self._waiting.keys() >= self._live:
            waiting, self._waiting = self._waiting, {}
            for episode in sorted(waiting):
                if not waiting[episode].done():
                    waiting[episode].set_result(None)
