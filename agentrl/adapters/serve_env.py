"""`agentrl serve-env`: any environment behind OpenEnv's protocol, many sessions at once.

A session is an env of its own in the runner that it asks for, so that a call which hangs, or an env
which dies, is an error message to its own player. `reset` takes a `task` (its number in the split)
or a `seed`; without either the tasks come in their order.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import math
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TypeVar, cast

import agentrl
from agentrl.core.config import Alone
from agentrl.core.errors import AgentRLError, ConfigError, DataError, MissingExtraError
from agentrl.core.protocols import EnvHandle, Runner, ToolFormat, abilities
from agentrl.core.types import Action, Json, Observation, Split, Step, Task
from agentrl.envs.openenv.server import Card, Data, Server
from agentrl.rollout.answers import as_observation, as_step
from agentrl.rollout.runners import runner_for
from agentrl.text.calls import Call, action_of, as_tools

T = TypeVar("T")
NO_CALL: Data = {"type": "array", "items": {"type": "object"}}


class Loop:
    """An event loop in a thread, in which runners of all sessions work."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="envs", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[object, object, T]) -> T:
        """What the coroutine comes to; the caller waits."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def close(self) -> None:
        """End the thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@dataclass(kw_only=True)
class Desk:
    """What the sessions share."""

    alone: Alone
    tasks: Sequence[Task]
    loop: Loop
    runner: Runner
    _next: itertools.count[int] = field(default_factory=itertools.count)

    def task(self, data: Data) -> Task:
        """The task that a reset asks for. Raises `DataError`."""
        count, number, seed = len(self.tasks), data.get("task"), data.get("seed")
        if number is None:
            number = next(self._next) % count if seed is None else seed
            if _is_number(number):
                number = cast("int", number) % count
        if not _is_number(number) or not 0 <= cast("int", number) < count:
            raise DataError(
                f"expected a seed, or a task from 0 to {count - 1}, got {dict(data)!r:.200}"
            )
        return self.tasks[cast("int", number)]


class EnvGame:
    """One session: an env, opened at the first reset and anew when it broke."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._handle: EnvHandle | None = None
        self._tools: tuple[Mapping[str, Json], ...] = ()
        self._episode: str | None = None
        self._steps = 0
        self._is_over = True

    def reset(self, data: Data) -> Data:
        """Begin a task. Raises `DataError` if there is none such, `EnvError` if the env fails."""
        task, loop = self._desk.task(data), self._desk.loop
        self._is_over = True
        if self._handle is None:
            self._handle = loop.run(self._desk.runner.open(self._desk.alone.env))
        shown = as_observation(self._call("reset", task))
        if "tools" in abilities(self._desk.alone.env):
            self._tools = as_tools(self._call("tools", task))
        name = data.get("episode_id")
        self._episode, self._steps, self._is_over = None if name is None else str(name), 0, False
        told: Data = {"task": task.id, "instruction": task.instruction, "tools": self._tools}
        return {"observation": {**_told(shown), **told}, "reward": None, "done": False}

    def step(self, action: Data, timeout_s: float | None = None) -> Data:
        """Act. A message without an action is told so, and counted invalid.

        Raises:
            DataError: it is neither a `message` nor `calls`.
            EnvError: the env failed; so does a step after the end.
        """
        if self._is_over:
            raise RuntimeError("the episode is over (or never began): reset")
        meant = self._read(action)
        self._steps += 1
        if meant is None:
            step = Step(observation=self._desk.alone.format.hint(), info={"invalid_action": True})
        else:
            step = as_step(self._call("step", meant, timeout_s=timeout_s))
        self._is_over = step.terminated or step.truncated
        observation = {**_told(as_observation(step.observation)), **_ends(step)}
        reward = float(step.reward) if math.isfinite(step.reward) else None
        return {"observation": observation, "reward": reward, "done": self._is_over}

    def state(self) -> Data:
        """OpenEnv's two fields."""
        return {"episode_id": self._episode, "step_count": self._steps}

    def close(self) -> None:
        """Close the env."""
        self._give_back(is_broken=False)

    def _read(self, action: Data) -> Action | None:
        """The env's action; None for a message that holds none."""
        unknown = sorted(set(action) - {"message", "calls", "metadata"})
        message, calls = action.get("message"), action.get("calls")
        if unknown or (message is None) == (calls is None):
            raise DataError(f"expected a message or calls, got {dict(action)!r:.200}")
        if isinstance(message, str):
            form = self._desk.alone.format
            if isinstance(form, ToolFormat):
                return form.calls(message, self._tools)
            return form.parse(message)
        found = calls if isinstance(calls, list) and calls else [None]
        if not all(isinstance(one, dict) and set(one) == {"name", "arguments"} for one in found):
            raise DataError(
                'calls: expected a list such as [{"name": "look", "arguments": {}}], '
                f"got {calls!r:.200}"
            )
        meant = cast("list[dict[str, dict[str, Json]]]", found)
        return action_of([Call(str(one["name"]), one["arguments"]) for one in meant])

    def _call(self, verb: str, *args: object, timeout_s: float | None = None) -> object:
        desk, handle = self._desk, self._handle
        assert handle is not None
        try:
            return desk.loop.run(desk.runner.call(handle, verb, *args, timeout_s=timeout_s))
        except AgentRLError:
            self._is_over = True
            self._give_back(is_broken=True)
            raise

    def _give_back(self, *, is_broken: bool) -> None:
        handle, self._handle = self._handle, None
        self._is_over = True
        if handle is not None:
            self._desk.loop.run(self._desk.runner.close(handle, is_broken=is_broken))


def card(alone: Alone, name: str) -> Card:
    """What the server says about the environment."""
    doc = (type(alone.env).__doc__ or name).partition("\n")[0]
    metadata: Data = {"type": "object", "default": {}}
    message: Data = {"type": "string", "description": alone.format.hint()}
    calls: Data = {**NO_CALL, "description": "Calls of the tools that reset listed."}
    has_tools = "tools" in abilities(alone.env)
    action: Data = {
        "title": "Action",
        "description": doc,
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "message": message,
            **({"calls": calls} if has_tools else {}),
            "metadata": metadata,
        },
        "required": [] if has_tools else ["message"],
    }
    text, flag, anything = {"type": "string"}, {"type": "boolean"}, {"type": "object"}
    several: Data = {"type": "array"}
    observation: Data = {
        "title": "Observation",
        "type": "object",
        "required": ["text"],
        "properties": {
            **dict.fromkeys(("text", "task", "instruction"), text),
            **dict.fromkeys(("messages", "images", "tools"), several),
            **dict.fromkeys(("success", "truncated", "invalid_action"), flag),
            "metrics": anything,
            "done": flag,
            "reward": {"anyOf": [{"type": "number"}, {"type": "null"}]},
            "metadata": metadata,
        },
    }
    return Card(
        name=name,
        description=doc,
        version=agentrl.__version__,
        action=action,
        observation=observation,
    )


def serve_env(
    alone: Alone,
    *,
    name: str,
    split: Split,
    host: str,
    port: int,
    sessions: int,
    idle_s: float,
    say: Callable[[str], None],
) -> None:
    """Serve until Ctrl-C; the arguments are those of `served`."""
    at = (host, port)
    with served(alone, name=name, split=split, at=at, sessions=sessions, idle_s=idle_s) as server:
        say(f"{name}, {split} split, speaks OpenEnv's protocol at {server.url}")
        threading.Event().wait()


@contextmanager
def served(
    alone: Alone,
    *,
    name: str,
    split: Split = "train",
    at: tuple[str, int] = ("127.0.0.1", 0),
    sessions: int = 256,
    idle_s: float = 600.0,
) -> Iterator[Server]:
    """The environment behind OpenEnv's protocol, until the block is left.

    Args:
        alone: the environment, and the action format in which messages are read.
        name: what the server calls it.
        at: address and port to listen on; port 0 is a free one.
        sessions: how many may be open at once.
        idle_s: seconds without a message after which a session is ended.

    Raises:
        ConfigError: the env has no such split, or the port is taken.
        MissingExtraError: `websockets` is not installed.
    """
    if find_spec("websockets") is None:
        raise MissingExtraError("websockets", "openenv")
    if split not in alone.env.splits:
        known = ", ".join(alone.env.splits)
        raise ConfigError(f"--split: {name} has no split {split!r} (known: {known})")
    tasks, runner, loop = alone.env.tasks(split), runner_for(alone.env, "auto"), Loop()
    try:
        desk = Desk(alone=alone, tasks=tasks, loop=loop, runner=runner)
        server = _listen(lambda: EnvGame(desk), card(alone, name), at, sessions, idle_s)
        try:
            yield server
        finally:
            server.close()
    finally:
        loop.close()


def _listen(
    make: Callable[[], EnvGame], about: Card, at: tuple[str, int], sessions: int, idle_s: float
) -> Server:
    host, port = at
    try:
        return Server(make, about, host=host, port=port, max_sessions=sessions, idle_s=idle_s)
    except (OSError, OverflowError) as error:
        raise ConfigError(f"--host {host} --port {port}: cannot listen there: {error}") from error


# --- what is told -----------------------------------------------------------------------------


def _told(shown: Observation) -> dict[str, Json]:
    """The observation's text, messages (each behind its role in the text) and pictures."""
    messages = shown.messages or ()
    text = "\n".join(f"{one.role}: {one.text}" for one in messages) if messages else shown.text
    images = [*shown.images, *(image for one in messages for image in one.images)]
    return {
        "text": text,
        "messages": [{"role": one.role, "content": one.text} for one in messages],
        "images": [base64.b64encode(image.png).decode() for image in images],
    }


def _ends(step: Step) -> dict[str, Json]:
    """What OpenEnv has no words for."""
    success, metrics = step.info.get("success"), step.info.get("metrics")
    numbers = metrics if isinstance(metrics, Mapping) else {}
    return {
        "success": None if success is None else bool(success),
        "truncated": step.truncated,
        "invalid_action": bool(step.info.get("invalid_action", False)),
        "metrics": {str(key): float(value) for key, value in numbers.items()},
    }


def _is_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
