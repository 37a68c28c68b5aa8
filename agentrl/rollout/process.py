"""The process runner: each env in a child process of its own, which can be killed.

The child is spawned (never forked), leads a session of its own, builds the env from the pickled
template, and answers one call at a time over a pipe. It ends when the pipe does, so that it does
not outlive the run.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import pickle
import signal
from contextlib import suppress
from dataclasses import dataclass, fields, is_dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from multiprocessing.reduction import ForkingPickler
from typing import Literal, NamedTuple

from agentrl.core.errors import DeadlineError, EnvError
from agentrl.core.protocols import Env, EnvHandle
from agentrl.rollout.calls import (
    CLOSE_S,
    OPEN_S,
    EnvRaisedError,
    Handle,
    called,
    checked,
    late,
    limit_of,
    own,
    raised,
    usable,
)

_log = logging.getLogger(__name__)


BUILDING = "building it"
UNGUARDED = "its message is above; a script that uses processes needs `if __name__ == '__main__':`"


class Answer(NamedTuple):
    """What the child sends back: a value, or an error's text and the class it was raised as."""

    kind: Literal["value", "raised", "failed"]
    value: object = None
    raised_as: str = ""


class Recipe(NamedTuple):
    """How the child makes its env: from a dataclass's settings, so that nothing opens in ours, or
    as the class's own `__reduce__` says."""

    kind: type[Env]
    settings: dict[str, object] | Env

    @classmethod
    def of(cls, template: Env) -> Recipe:
        """The recipe for envs like `template`."""
        if type(template).__reduce__ is not object.__reduce__:
            return cls(type(template), template)
        names = [f.name for f in fields(template) if f.init] if is_dataclass(template) else None
        settings = template if names is None else {name: getattr(template, name) for name in names}
        return cls(type(template), settings)

    def make(self) -> Env:
        """A new env."""
        return self.settings if isinstance(self.settings, Env) else self.kind(**self.settings)


@dataclass(eq=False, kw_only=True)
class ProcessHandle(Handle):
    """An env that lives in a process of its own."""

    process: SpawnProcess
    pipe: Connection


class ProcessRunner:
    """Gives each env a process: the only runner that survives whatever an env does."""

    async def open(self, template: Env) -> ProcessHandle:
        """Start a process that builds the env. Raises `EnvError` or `DeadlineError`."""
        name = type(template).__name__
        payload = _pickled(Recipe.of(template), f"env {name} cannot be sent to a process")
        ours, theirs = multiprocessing.Pipe()
        process = multiprocessing.get_context("spawn").Process(
            target=serve, args=(theirs, payload), name=f"env {name}", daemon=True
        )
        process.start()
        theirs.close()
        handle = ProcessHandle(template=template, process=process, pipe=ours)
        try:
            await _answer(handle, BUILDING, OPEN_S)
        except BaseException:
            await self.close(handle, is_broken=True)
            raise
        return handle

    async def call(
        self, env: EnvHandle, verb: str, *args: object, timeout_s: float | None = None
    ) -> object:
        """Call a method in the env's process; if it is late the process is killed."""
        handle = usable(env, ProcessHandle)
        message = _pickled(
            (verb, args),
            f"env {handle.name}: the arguments of {verb} cannot be sent to its process",
        )
        try:
            handle.pipe.send_bytes(message)
            value = await _answer(handle, verb, limit_of(handle, timeout_s))
        except (DeadlineError, asyncio.CancelledError):
            handle.is_broken = True
            kill(handle.process)
            raise
        except OSError:
            raise await _dead(handle, verb) from None
        return checked(handle, verb, value)

    async def close(self, env: EnvHandle, *, is_broken: bool = False) -> None:
        """Close the env and end its process; a broken one is killed."""
        handle = own(env, ProcessHandle)
        if handle.is_closed:
            return
        is_broken = is_broken or handle.is_broken
        try:
            if not is_broken:
                await self.call(handle, "close", timeout_s=CLOSE_S)
        finally:
            handle.is_closed = True
            handle.pipe.close()
            await _reap(handle.process, is_broken=is_broken or handle.is_broken)


async def _answer(handle: ProcessHandle, verb: str, limit: float) -> object:
    """The child's next answer, if it comes in time. Raises what it tells of."""
    try:
        await _readable(handle.pipe.fileno(), limit)
    except TimeoutError:
        raise late(handle, verb, limit) from None
    try:
        answer: Answer = pickle.loads(handle.pipe.recv_bytes())
    except (EOFError, ConnectionError):
        raise await _dead(handle, verb) from None
    except Exception as error:
        handle.is_broken = True
        raise EnvError(
            f"env {handle.name}: what {verb} returned cannot be read outside its process "
            f"({type(error).__name__}: {error})"
        ) from error
    if answer.kind == "raised":
        raise EnvRaisedError(str(answer.value), answer.raised_as)
    if answer.kind == "failed":
        raise EnvError(str(answer.value))
    return answer.value


async def _dead(handle: ProcessHandle, verb: str) -> EnvError:
    handle.is_broken = True
    with suppress(TimeoutError):
        await _readable(handle.process.sentinel, CLOSE_S)
    handle.process.join(1.0)  # the exit code follows the sentinel by a moment
    code = handle.process.exitcode
    how = (
        f"was killed by signal {-code}" if code is not None and code < 0 else f"exited with {code}"
    )
    hint = f" ({UNGUARDED})" if verb == BUILDING else ""
    return EnvError(f"env {handle.name}: its process {how} during {verb}{hint}")


async def _readable(fd: int, timeout_s: float) -> None:
    """Wait until `fd` can be read. Raises `TimeoutError`."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(fd, ready.set)
    try:
        async with asyncio.timeout(timeout_s):
            await ready.wait()
    finally:
        loop.remove_reader(fd)


async def _reap(process: SpawnProcess, *, is_broken: bool) -> None:
    if is_broken:
        kill(process)
    with suppress(TimeoutError):
        await _readable(process.sentinel, CLOSE_S)
    process.join(1.0)
    kill(process)
    process.join()
    process.close()


def kill(process: SpawnProcess) -> None:
    """End the process and whatever it started, at once."""
    pid = process.pid
    if pid is None or process.exitcode is not None:
        return
    with suppress(ProcessLookupError, PermissionError):
        if os.getpgid(pid) == pid:  # it leads its own session by now
            os.killpg(pid, signal.SIGKILL)
    process.kill()


def _pickled(value: object, complaint: str) -> bytes:
    try:
        return bytes(ForkingPickler.dumps(value))
    except Exception as error:
        raise EnvError(f"{complaint} ({type(error).__name__}: {error})") from error


# --- in the child ---------------------------------------------------------------------------------


def serve(pipe: Connection, payload: bytes) -> None:
    """Build the env and answer calls until the pipe ends."""
    os.setsid()
    with asyncio.Runner() as loop:
        try:
            env = pickle.loads(payload).make()
        except Exception as error:  # noqa: BLE001 - the parent raises it
            _send(pipe, _told(raised("in a new process", BUILDING, error)))
            return
        _send(pipe, Answer("value"))
        while True:
            try:
                verb, args = pickle.loads(pipe.recv_bytes())
            except (EOFError, ConnectionError):
                return
            try:
                answer = Answer("value", called(loop, env, verb, args))
            except EnvError as error:
                answer = _told(error)
            _send(pipe, answer)


def _told(error: EnvError) -> Answer:
    if isinstance(error, EnvRaisedError):
        return Answer("raised", str(error), error.kind)
    return Answer("failed", str(error))


def _send(pipe: Connection, answer: Answer) -> None:
    try:
        message = _pickled(answer, f"its {type(answer.value).__name__} cannot leave the process")
    except EnvError as error:
        message = _pickled(_told(error), "")
    with suppress(BrokenPipeError):
        pipe.send_bytes(message)
