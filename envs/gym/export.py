"""Any environment of ours as a `gymnasium.Env` of text, alone or in Gymnasium's vector envs.

    env = as_gymnasium(BabyAI(level="GoToObj"))
    text, info = env.reset(seed=3)
    text, reward, terminated, truncated, info = env.step("go forward")
    many = as_vector(BabyAI(level="GoToObj"), 8)    # or by Gymnasium's own hand:
    many = gymnasium.vector.SyncVectorEnv([lambda: as_gymnasium(BabyAI()) for _ in range(8)])

A seed chooses a task of the split, and so does `options={"task": n}`; without either the tasks come
in their order, and in a vector env each copy takes those that are not the others'. Several calls in
one message are a JSON list of them.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import string
from dataclasses import replace
from functools import partial
from typing import Any, Literal, cast

import gymnasium
from gymnasium.spaces import Text
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv

from agentrl.core.errors import DataError, EnvError
from agentrl.core.protocols import Env
from agentrl.core.types import Action, Observation, Split, Step

LONGEST = 1_000_000
"""Letters of an observation or an action at most, as the spaces say."""


class AsGymnasium(gymnasium.Env[str, str]):
    """One of our environments behind Gymnasium's interface."""

    def __init__(self, env: Env, split: Split = "train", first: int = 0, stride: int = 1) -> None:
        """Args:
        first: the task that begins.
        stride: how many tasks further the next one is.
        """
        self.env, self.split = env, split
        self.observation_space = self.action_space = _AnyText()
        self._tasks = env.tasks(split)
        self._next, self._stride = first % len(self._tasks), stride
        self._loop: asyncio.Runner | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Begin a task; its id and instruction are in `info`.

        Raises:
            DataError: there is no task of that number.
        """
        super().reset(seed=seed)
        count = len(self._tasks)
        number = (options or {}).get("task", self._next if seed is None else seed % count)
        if not isinstance(number, int) or not 0 <= number < count:
            raise DataError(f"options['task']: expected 0 to {count - 1}, got {number!r}")
        self._next = (number + self._stride) % count
        task = self._tasks[number]
        shown = self._called(self.env.reset(task))
        return _text(shown), {"task": task.id, "instruction": task.instruction}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Act, by one string or a JSON list of them."""
        step = self._called(self.env.step(_action(action)))
        if not isinstance(step, Step):
            raise EnvError(f"expected a Step from the env's step(), got {step!r:.200}")
        ends = bool(step.terminated), bool(step.truncated)
        return _text(step.observation), float(step.reward), *ends, dict(step.info)

    def close(self) -> None:
        """Close the environment."""
        self._called(self.env.close())
        if self._loop is not None:
            self._loop.close()
            self._loop = None

    def _called(self, value: object) -> object:
        if not inspect.isawaitable(value):
            return value
        self._loop = self._loop or asyncio.Runner()

        async def wait() -> object:
            return await value

        return self._loop.run(wait())


class _AnyText(Text):
    """All text: Gymnasium's own space lists its letters."""

    def __init__(self) -> None:
        super().__init__(max_length=LONGEST, min_length=0, charset=string.printable)

    def contains(self, x: object) -> bool:
        """Any string that is not longer than that."""
        return isinstance(x, str) and len(x) <= LONGEST

    def sample(self, *args: object, **settings: object) -> str:
        """A short one."""
        letters = self.np_random.integers(97, 123, size=8)
        return "".join(map(chr, letters))


def as_gymnasium(env: Env, split: Split = "train") -> AsGymnasium:
    """The environment as Gymnasium's; it plays the tasks of `split`."""
    return AsGymnasium(env, split)


def as_vector(
    env: Env,
    count: int,
    split: Split = "train",
    *,
    mode: Literal["sync", "async"] = "sync",
    autoreset: AutoresetMode = AutoresetMode.NEXT_STEP,
) -> VectorEnv[Any, Any, Any]:
    """Copies of the environment in Gymnasium's own vector env, which deals the tasks out to them.

    Args:
        env: what is copied; it is not played itself.
        count: how many copies.
        mode: all in this process, or each in a process of its own.
        autoreset: what Gymnasium does where an episode ends.
    """
    makers = [partial(AsGymnasium, replace(env), split, i, count) for i in range(count)]  # type: ignore[type-var]
    if mode == "sync":
        return SyncVectorEnv(makers, autoreset_mode=autoreset)
    # Shared memory would keep text letter by letter.
    return AsyncVectorEnv(makers, autoreset_mode=autoreset, shared_memory=False)


def _action(text: str) -> Action:
    if not text.startswith("["):
        return text
    try:
        found = json.loads(text)
    except ValueError:
        return text
    is_list = isinstance(found, list) and all(isinstance(one, str) for one in found)
    return cast("list[str]", found) if is_list else text


def _text(shown: object) -> str:
    """An observation in words; messages each behind its role."""
    if isinstance(shown, str):
        return shown
    if not isinstance(shown, Observation):
        raise EnvError(f"expected an Observation or a str from the env, got {shown!r:.200}")
    if shown.messages is None:
        return shown.text
    return "\n".join(f"{message.role}: {message.text}" for message in shown.messages)
