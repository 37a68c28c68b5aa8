"""An event loop in a thread of its own: what runs there goes on while the trainer trains."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Coroutine
from types import TracebackType
from typing import Protocol, Self, TypeVar

T = TypeVar("T")

logger = logging.getLogger(__name__)

STOPPING_S = 30.0
"""How long tasks that were cancelled may take to end."""


class Loop(Protocol):
    """Runs coroutines to their end: `asyncio.Runner`, or one in the background."""

    def run(self, coro: Coroutine[object, object, T]) -> T:
        """The coroutine's result."""
        ...


class BackgroundLoop:
    """`run` waits for one coroutine as `asyncio.Runner` does; the tasks that it leaves behind do
    not wait for the next one."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._work, name="rollouts", daemon=True)

    def _work(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def run(self, coro: Coroutine[object, object, T]) -> T:
        """The coroutine's result; Ctrl-C cancels it."""
        answer = asyncio.run_coroutine_threadsafe(coro, self._loop)
        try:
            return answer.result()
        except BaseException:
            answer.cancel()
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.run(_cancel_all())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(STOPPING_S)
        if not self._thread.is_alive():
            self._loop.close()


async def _cancel_all() -> None:
    loop = asyncio.get_running_loop()
    tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=STOPPING_S)
    await loop.shutdown_asyncgens()
    try:
        async with asyncio.timeout(STOPPING_S):
            await loop.shutdown_default_executor()
    except TimeoutError:
        logger.warning("a thread of the rollouts did not end within %g s", STOPPING_S)
