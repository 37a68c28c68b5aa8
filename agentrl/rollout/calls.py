"""What every runner does alike: builds an env, calls its methods, checks answers, words errors."""

from __future__ import annotations

import asyncio
import copy
import inspect
import traceback
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, is_dataclass, replace
from typing import TypeVar

from agentrl.core.errors import DeadlineError, EnvError, did_you_mean
from agentrl.core.protocols import Env, EnvHandle
from agentrl.core.types import Observation, Step

OPEN_S = 60.0
"""Seconds that building an env may take (a new process imports the env's module first)."""
CLOSE_S = 10.0
"""Seconds that `Env.close` may take."""


class EnvRaisedError(EnvError):
    """A method of an env raised; `kind` is the class name of what it raised."""

    def __init__(self, message: str, kind: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(eq=False, kw_only=True)
class Handle:
    """An open env. A broken one is called no more, only closed."""

    template: Env
    is_broken: bool = False
    is_closed: bool = False

    @property
    def name(self) -> str:
        """The class name of the env, for messages."""
        return type(self.template).__name__


def build(template: Env) -> Env:
    """A fresh env with the template's settings and none of its state. Raises `EnvRaisedError`."""
    try:
        return replace(template) if is_dataclass(template) else copy.deepcopy(template)
    except Exception as error:
        raise raised(type(template).__name__, "building it", error) from error


def called(
    loop: asyncio.Runner,
    env: Env,
    verb: str,
    args: tuple[object, ...],
    limit: float | None = None,
) -> object:
    """What a method returns, or what its coroutine comes to in `loop`.

    `limit` ends a late coroutine (a sync method cannot be ended from within).

    Raises:
        EnvRaisedError: the method raised.
        DeadlineError: the coroutine was late.
    """
    method = method_of(env, verb)
    try:
        value = method(*args)
        return loop.run(_awaited(value, limit)) if inspect.isawaitable(value) else value
    except DeadlineError:
        raise
    except Exception as error:
        raise raised(type(env).__name__, verb, error) from error


async def _awaited(value: Awaitable[object], limit: float | None) -> object:
    try:
        async with asyncio.timeout(limit) as scope:
            return await value
    except TimeoutError as error:
        if scope.expired():
            raise DeadlineError(f"no answer within {limit} s") from error
        raise


def method_of(env: Env, verb: str) -> Callable[..., object]:
    """A public method of the env. Raises `EnvError` naming the nearest that exists."""
    method = None if verb.startswith("_") else getattr(env, verb, None)
    if callable(method):
        return method  # type: ignore[no-any-return]
    known = [n for n in dir(env) if not n.startswith("_") and callable(getattr(env, n, None))]
    raise EnvError(
        f"env {type(env).__name__} has no method {verb!r}{did_you_mean(verb, known)} "
        f"(it has: {', '.join(known)})"
    )


def raised(name: str, verb: str, error: Exception) -> EnvRaisedError:
    """The error for what an env raised, with the line that raised it."""
    kind = type(error).__name__
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
    return EnvRaisedError(f"env {name}: {verb} raised {kind}: {error}{where}", kind)


def late(handle: Handle, verb: str, limit: float) -> DeadlineError:
    """The error for a call that did not return in time; breaks the handle."""
    handle.is_broken = True
    return DeadlineError(
        f"env {handle.name}: {verb} did not answer within {limit:g} s "
        "(the env's timeout_s, or rollout.env_timeout_s)"
    )


def limit_of(handle: Handle, timeout_s: float | None) -> float:
    """The deadline of a call: the caller's, or else the env's own."""
    return handle.template.timeout_s if timeout_s is None else timeout_s


Kind = TypeVar("Kind", bound=Handle)


def own(env: EnvHandle, kind: type[Kind]) -> Kind:
    """The handle, if this runner opened it."""
    if not isinstance(env, kind):
        raise TypeError(f"expected a {kind.__name__} of this runner, got a {type(env).__name__}")
    return env


def usable(env: EnvHandle, kind: type[Kind]) -> Kind:
    """The handle, if this runner opened it and it can be called. Raises `EnvError`."""
    handle = own(env, kind)
    if handle.is_closed or handle.is_broken:
        state = "closed" if handle.is_closed else "broken by a call that failed or was given up"
        raise EnvError(f"env {handle.name} is {state}: open another one")
    return handle


def checked(handle: Handle, verb: str, value: object) -> object:
    """The value, if `reset` and `step` kept their promise. Raises `EnvError`."""
    if verb == "reset":
        _check_observation(handle, "reset to return", value)
    elif verb == "step":
        if not isinstance(value, Step):
            raise _garbage(handle, "step to return a Step", value)
        _check_observation(handle, "Step.observation to be", value.observation)
        if isinstance(value.reward, bool) or not isinstance(value.reward, int | float):
            raise _garbage(handle, "Step.reward to be a number", value.reward)
        if not isinstance(value.info, Mapping):
            raise _garbage(handle, "Step.info to be a mapping", value.info)
    return value


def _check_observation(handle: Handle, what: str, value: object) -> None:
    if isinstance(value, Observation):
        value = value.text
    if not isinstance(value, str):
        raise _garbage(handle, f"{what} an Observation or a str", value)


def _garbage(handle: Handle, expected: str, value: object) -> EnvError:
    handle.is_broken = True
    return EnvError(
        f"env {handle.name}: expected {expected}, got {type(value).__name__} {value!r:.100}"
    )
