"""A gate before the engine: while it is shut, episodes wait there with their next turn."""

from __future__ import annotations

import asyncio
import time


class Gate:
    """Keeps episodes from the engine while the trainer trains; whoever is being sampled goes on."""

    def __init__(self) -> None:
        self._is_open = asyncio.Event()
        self._is_open.set()

    def open(self) -> None:
        """Let everybody pass."""
        self._is_open.set()

    def shut(self) -> None:
        """Whoever comes now waits."""
        self._is_open.clear()

    async def wait(self) -> float:
        """Return when the gate is open: the seconds that it took, which no deadline counts."""
        began = time.perf_counter()
        await self._is_open.wait()
        return time.perf_counter() - began
