"""Where envs run: in the event loop, in a thread of their own, or in a process of their own.

| runner | a call that hangs | an env that kills its interpreter | a call costs |
|---|---|---|---|
| `InlineRunner` | blocks everything; `DeadlineError` once it returns | ends the run | nothing |
| `ThreadRunner` | `DeadlineError` in time; the thread is abandoned | ends the run | a switch |
| `ProcessRunner` | `DeadlineError` in time; the process is killed | `EnvError` | pickling |

An `async def` method is awaited (inline), or run to its end by a loop of the thread or process.
Whatever an env raises comes back as `EnvRaisedError`, whatever else goes wrong as `EnvError`.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Literal, NamedTuple

from agentrl.core.errors import ConfigError, DeadlineError, EnvError, did_you_mean
from agentrl.core.protocols import Env, EnvHandle, Runner, RunsIn
from agentrl.rollout.calls import (
    CLOSE_S,
    OPEN_S,
    EnvRaisedError,
    Handle,
    build,
    called,
    checked,
    late,
    limit_of,
    method_of,
    own,
    raised,
    usable,
)
from agentrl.rollout.process import ProcessRunner

__all__ = [
    "RUNNERS",
    "EnvPool",
    "EnvRaisedError",
    "InlineRunner",
    "ProcessRunner",
    "ThreadRunner",
    "WorkerThread",
    "runner_for",
]

_log = logging.getLogger(__name__)

# --- inline ---------------------------------------------------------------------------------------


@dataclass(eq=False, kw_only=True)
class InlineHandle(Handle):
    """An env that lives in the event loop's own thread."""

    env: Env


class InlineRunner:
    """Calls the env directly: right for envs that are cheap and never block."""

    async def open(self, template: Env) -> InlineHandle:
        """A fresh env with the template's settings."""
        return InlineHandle(template=template, env=build(template))

    async def call(
        self, env: EnvHandle, verb: str, *args: object, timeout_s: float | None = None
    ) -> object:
        """Call a method. A sync one cannot be cut: if late, its answer is refused afterwards."""
        handle = usable(env, InlineHandle)
        limit = limit_of(handle, timeout_s)
        began = time.perf_counter()
        try:
            async with asyncio.timeout(limit):
                value = await _called_here(handle.env, verb, args)
        except TimeoutError:
            raise late(handle, verb, limit) from None
        except asyncio.CancelledError:
            handle.is_broken = True
            raise
        seconds = time.perf_counter() - began
        if seconds > limit:
            handle.is_broken = True
            raise DeadlineError(
                f"env {handle.name}: {verb} took {seconds:.3g} s, its deadline was {limit:g} s; "
                "inline it could not be cut: use runs_in='thread' or 'process'"
            )
        return checked(handle, verb, value)

    async def close(self, env: EnvHandle, *, is_broken: bool = False) -> None:
        """Close the env, a broken one too. Raises `EnvError` if a sound one could not be closed."""
        handle = own(env, InlineHandle)
        if handle.is_closed:
            return
        handle.is_closed = True
        is_broken = is_broken or handle.is_broken
        try:
            async with asyncio.timeout(CLOSE_S):
                await _called_here(handle.env, "close", ())
        except TimeoutError:
            raise late(handle, "close", CLOSE_S) from None
        except EnvError:
            if not is_broken:  # else the fault is known
                raise


async def _called_here(env: Env, verb: str, args: tuple[object, ...]) -> object:
    method = method_of(env, verb)
    try:
        value = method(*args)
        return await value if inspect.isawaitable(value) else value
    except Exception as error:
        raise raised(type(env).__name__, verb, error) from error


# --- thread ---------------------------------------------------------------------------------------


class Job(NamedTuple):
    """What a worker thread is asked to do with its event loop, and where the answer goes."""

    function: Callable[[asyncio.Runner], object]
    answer: Future[object]


class WorkerThread:
    """A daemon thread that does one job after another."""

    def __init__(self, name: str) -> None:
        self._inbox: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._ended: Future[None] = Future()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    async def run(self, function: Callable[[asyncio.Runner], object]) -> object:
        """Do it there and wait for the answer; a cancelled wait abandons what has begun."""
        answer: Future[object] = Future()
        self._inbox.put(Job(function, answer))
        return await asyncio.wrap_future(answer)

    def stop(self, last: Callable[[asyncio.Runner], object] | None = None) -> None:
        """End the thread after what it was given, and after `last`. Does not wait."""
        if last is not None:
            self._inbox.put(Job(last, Future()))
        self._inbox.put(None)

    async def join(self) -> None:
        """Wait for the end of a stopped thread."""
        await asyncio.wrap_future(self._ended)
        self._thread.join()

    def _work(self) -> None:
        loop = asyncio.Runner()  # not entered: a loop costs three open files, and few envs need one
        try:
            for function, answer in iter(self._inbox.get, None):
                if not answer.set_running_or_notify_cancel():
                    continue
                try:
                    answer.set_result(function(loop))
                except BaseException as error:  # noqa: BLE001 - it belongs to whoever asked
                    answer.set_exception(error)
        finally:
            loop.close()
            self._ended.set_result(None)


@dataclass(eq=False, kw_only=True)
class ThreadHandle(Handle):
    """An env that lives in a thread of its own."""

    env: Env
    thread: WorkerThread


class ThreadRunner:
    """Gives each env a thread, so that waiting for one keeps nobody else waiting."""

    async def open(self, template: Env) -> ThreadHandle:
        """A fresh env with the template's settings, built in its thread."""
        thread = WorkerThread(f"env {type(template).__name__}")
        try:
            async with asyncio.timeout(OPEN_S):
                env = await thread.run(lambda _: build(template))
        except BaseException:
            thread.stop()
            raise
        assert isinstance(env, Env)
        return ThreadHandle(template=template, env=env, thread=thread)

    async def call(
        self, env: EnvHandle, verb: str, *args: object, timeout_s: float | None = None
    ) -> object:
        """Call a method in the env's thread. A late one is abandoned; its env is called no more."""
        handle = usable(env, ThreadHandle)
        limit = limit_of(handle, timeout_s)
        try:
            async with asyncio.timeout(limit):
                value = await handle.thread.run(
                    lambda loop: called(loop, handle.env, verb, args, limit)
                )
        except TimeoutError:  # ours, or the DeadlineError of a coroutine that was ended there
            raise late(handle, verb, limit) from None
        except asyncio.CancelledError:
            handle.is_broken = True
            raise
        return checked(handle, verb, value)

    async def close(self, env: EnvHandle, *, is_broken: bool = False) -> None:
        """Close the env and end its thread; a broken one does both when its last call returns."""
        handle = own(env, ThreadHandle)
        if handle.is_closed:
            return
        handle.is_closed = True
        if is_broken or handle.is_broken:
            handle.thread.stop(last=lambda loop: called(loop, handle.env, "close", (), CLOSE_S))
            return
        try:
            async with asyncio.timeout(CLOSE_S):
                await handle.thread.run(lambda loop: called(loop, handle.env, "close", (), CLOSE_S))
                handle.thread.stop()
                await handle.thread.join()
        except TimeoutError:
            raise late(handle, "close", CLOSE_S) from None
        finally:
            handle.thread.stop()


# --- choosing and sharing -------------------------------------------------------------------------


RUNNERS: dict[str, type[Runner]] = {
    "inline": InlineRunner,
    "thread": ThreadRunner,
    "process": ProcessRunner,
}


def runner_for(env: Env, choice: Literal["auto"] | RunsIn = "auto") -> Runner:
    """The runner of that name; `auto` is the env's own `runs_in`. Raises `ConfigError`."""
    named = env.runs_in if choice == "auto" else choice
    if named not in RUNNERS:
        where = f"{type(env).__name__}.runs_in" if choice == "auto" else "runner"
        raise ConfigError(
            f"{where}: no runner is called {named!r}{did_you_mean(str(named), RUNNERS)} "
            f"(known: {', '.join(RUNNERS)})"
        )
    return RUNNERS[named]()


class EnvPool:
    """Lends open envs from episode to episode; opens another one when all are lent."""

    def __init__(self, runner: Runner, template: Env) -> None:
        self._runner = runner
        self._template = template
        self._idle: list[EnvHandle] = []
        self._lent: set[EnvHandle] = set()
        self._turns = asyncio.Semaphore(max(2, os.cpu_count() or 1))

    @property
    def size(self) -> int:
        """Open envs, lent or not."""
        return len(self._idle) + len(self._lent)

    async def acquire(self) -> EnvHandle:
        """An env that nobody else has until it is released. Raises `EnvError`, `DeadlineError`."""
        env = self._idle.pop() if self._idle else await self._open()
        self._lent.add(env)
        return env

    async def _open(self) -> EnvHandle:
        """A new env, or one that was given back meanwhile; a core opens one at a time.

        Starting a process is work, and its deadline would pass if a hundred started at once.
        """
        async with self._turns:
            return self._idle.pop() if self._idle else await self._runner.open(self._template)

    async def release(self, env: EnvHandle, *, is_broken: bool = False) -> None:
        """Give it back; a broken one is closed and never lent again."""
        self._lent.discard(env)
        if is_broken or (isinstance(env, Handle) and env.is_broken):
            await self._close(env, is_broken=True)
        else:
            self._idle.append(env)

    async def discard(self, env: EnvHandle) -> None:
        """Give back an env that cannot be trusted any more."""
        await self.release(env, is_broken=True)

    async def close(self) -> None:
        """Close every env; those still lent count as broken."""
        idle, self._idle = self._idle, []
        lent, self._lent = self._lent, set()
        async with asyncio.TaskGroup() as group:
            for env in (*idle, *lent):
                group.create_task(self._close(env, is_broken=env in lent))

    async def _close(self, env: EnvHandle, *, is_broken: bool) -> None:
        try:
            await self._runner.close(env, is_broken=is_broken)
        except (EnvError, DeadlineError) as error:
            _log.warning("%s", error)
