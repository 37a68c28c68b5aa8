"""Deadlines that stand still while nobody can be blamed: the engine has no server for a while.

Whoever limits what an engine does sets `deadline(seconds)` in place of `asyncio.timeout`; an engine
that waits for something of its own (a server that is started again) waits under `standstill()`, and
the deadlines round it are put off by as long.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar

_running: ContextVar[tuple[asyncio.Timeout, ...]] = ContextVar("deadlines", default=())


@asynccontextmanager
async def deadline(seconds: float) -> AsyncIterator[asyncio.Timeout]:
    """Like `asyncio.timeout`; what is awaited inside can hold the clock."""
    async with asyncio.timeout(seconds) as timeout:
        token = _running.set((*_running.get(), timeout))
        try:
            yield timeout
        finally:
            _running.reset(token)


@contextmanager
def standstill() -> Iterator[None]:
    """The time in here counts for no deadline that this task is under."""
    clock = asyncio.get_running_loop().time
    began = clock()
    held = [(timeout, timeout.when()) for timeout in _running.get() if not timeout.expired()]
    for timeout, _ in held:
        timeout.reschedule(None)
    try:
        yield
    finally:
        waited = clock() - began
        for timeout, due in held:
            if due is not None and not timeout.expired():
                timeout.reschedule(due + waited)
