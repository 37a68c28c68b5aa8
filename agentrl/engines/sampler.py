"""The thread that samples: it steps a batch while anybody waits, and answers in the event loop.

Requests that are handed over together are seen together, between two steps. The model's attention
is switched for bursts of steps; nobody is answered, and nobody who gave up is let go, by the last
step of a burst before the module is as it was: whoever trains next finds it so.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import TypeVar

from agentrl.core.errors import EngineError
from agentrl.core.protocols import Completion
from agentrl.engines.attention import sampling
from agentrl.engines.continuous import Answer, Batch
from agentrl.engines.packed import NAME
from agentrl.engines.rows import Request

T = TypeVar("T")
Deed = Callable[[], None]


class Sampler:
    """A batch and its thread. All methods are called from one event loop."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="transformers")
        batch.passes.narrow(self._thread)
        self._lock = threading.Lock()
        self._inbox: deque[Callable[[], Deed | None]] = deque()
        self._is_running = False
        self._waiting: dict[Request, asyncio.Future[Completion]] = {}
        self._arriving: list[Request] = []
        self._ended: set[int] = set()

    # --- in the event loop -------------------------------------------------------------------

    async def ask(self, request: Request) -> Completion:
        """The answer; requests of one turn of the loop are handed over together."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Completion] = loop.create_future()
        self._waiting[request] = answer
        if not self._arriving:
            loop.call_soon(self._hand_over)
        self._arriving.append(request)
        try:
            return await answer
        except asyncio.CancelledError:
            request.is_given_up = True
            raise
        finally:
            self._waiting.pop(request, None)

    def _hand_over(self) -> None:
        # Only now: at which moment an episode ended must not decide what a step finds.
        requests, ended = self._arriving, frozenset(self._ended)
        self._arriving, self._ended = [], set()
        self.post(partial(self.batch.arrive, requests, ended))

    def end(self, episode: int) -> None:
        """Forget the episode's row before the next requests are looked at."""
        self._ended.add(episode)

    async def call(self, verb: Callable[[], T]) -> T:
        """Run something in the thread, between two steps."""
        done: Future[T] = Future()

        def run() -> Deed | None:
            if not done.set_running_or_notify_cancel():
                return None  # the caller waited too long
            try:
                return partial(done.set_result, verb())
            except Exception as error:  # noqa: BLE001 - handed to the caller
                return partial(done.set_exception, error)

        self.post(run)
        return await asyncio.wrap_future(done)

    def give_up(self) -> None:
        """Fail whoever waits."""
        for request, answer in self._waiting.items():
            request.is_given_up = True
            if not answer.done():
                answer.set_exception(EngineError("engine 'transformers' was closed"))

    def close(self) -> None:
        """End the thread after its step."""
        self._thread.shutdown(wait=False)
        self.batch.passes.close()

    def post(self, job: Callable[[], Deed | None]) -> None:
        """Have the thread do something between two steps; what it returns is done as soon as the
        module is free or others are sampled on."""
        with self._lock:
            self._inbox.append(job)
            if not self._is_running:
                self._is_running = True
                self._thread.submit(self._run)

    def _deliver(self, answers: Sequence[Answer]) -> None:
        for request, found in answers:
            answer = self._waiting.get(request)
            if answer is None or answer.done():
                continue
            if isinstance(found, Completion):
                answer.set_result(found)
            else:
                answer.set_exception(found)

    # --- in the thread -----------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            deeds = self._look()
            if self.batch.has_work:
                deeds += self._burst()
            _do(deeds)
            with self._lock:
                if not self._inbox:
                    self._is_running = False
                    return

    def _look(self) -> list[Deed]:
        """Do what came in; what it calls for is done once the module is free."""
        with self._lock:
            jobs = [self._inbox.popleft() for _ in range(len(self._inbox))]
        deeds = [deed for job in jobs if (deed := job()) is not None]
        self.batch.sweep()
        return deeds

    def _burst(self) -> list[Deed]:
        deeds: list[Deed] = []
        try:
            with sampling(self.batch.policy.module, NAME):
                while self.batch.has_work:
                    _do(deeds)
                    deeds += [partial(self._answer, self.batch.step()), *self._look()]
        except Exception as error:  # noqa: BLE001 - the boundary to models
            deeds.append(partial(self._answer, self.batch.fail(error, everybody=True)))
        return deeds

    def _answer(self, answers: list[Answer]) -> None:
        for loop in {answer.get_loop() for r, _ in answers if (answer := self._waiting.get(r))}:
            with suppress(RuntimeError):  # the loop was closed: nobody waits
                loop.call_soon_threadsafe(self._deliver, answers)


def _do(deeds: list[Deed]) -> None:
    while deeds:
        deeds.pop(0)()
