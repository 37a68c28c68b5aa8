"""Envs for tests: one that behaves (`EchoEnv`, with every ability) and ones that don't.

Module-level classes, so that spawned processes can import them.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import multiprocessing
import os
import resource
import signal
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, cast

from agentrl.core.protocols import Env, RunsIn
from agentrl.core.types import Action, Observation, Split, Step, Task

WORDS = ("ant", "bee", "cat", "dog", "elk", "fox")
QUARTERS: dict[Split, tuple[int, ...]] = {"train": (0, 1), "dev": (2,), "test": (3,)}


@dataclass(kw_only=True)
class EchoEnv(Env):
    """Say the word that is shown, `length` times; each right one is worth `1 / length`.

    The episode ends after `length` words, with success if all were right, or is truncated at `cap`
    turns (words that are no words cost a turn and lead nowhere).
    """

    runs_in: ClassVar[RunsIn] = "inline"
    timeout_s: ClassVar[float] = 5.0

    length: int = 2
    cap: int = 8

    def __post_init__(self) -> None:
        self._words: tuple[str, ...] = ()
        self._said: list[str] = []
        self._turn = 0
        self._is_over = True

    def tasks(self, split: Split) -> Sequence[Task]:
        """Every sequence of words; its number modulo 4 decides the split."""
        sequences = enumerate(itertools.product(WORDS, repeat=self.length))
        return [
            Task(id=f"echo/{number}", seed=number, answer=words[0], data={"words": list(words)})
            for number, words in sequences
            if number % 4 in QUARTERS[split]
        ]

    def reset(self, task: Task) -> Observation | str:
        words = cast("list[str]", task.data["words"])
        self._words, self._said, self._turn, self._is_over = tuple(words), [], 0, False
        return self._observe()

    def step(self, action: Action) -> Step:
        if self._is_over:
            raise RuntimeError("the episode is over")
        self._turn += 1
        is_known = action in WORDS
        reward = 0.0
        if is_known:
            reward = float(action == self._words[len(self._said)]) / self.length
            self._said.append(str(action))
        terminated = len(self._said) == self.length
        truncated = not terminated and self._turn >= self.cap
        self._is_over = terminated or truncated
        info: dict[str, object] = {"metrics": {"said": float(len(self._said))}}
        if self._is_over:
            info["success"] = tuple(self._said) == self._words
        if not is_known:
            info["invalid_action"] = True
        return Step(
            observation="the end" if self._is_over else self._observe(),
            reward=reward,
            terminated=terminated,
            truncated=truncated,
            info=info,
        )

    def snapshot(self) -> object:
        return self._words, tuple(self._said), self._turn, self._is_over

    def restore(self, snapshot: tuple[tuple[str, ...], tuple[str, ...], int, bool]) -> None:
        self._words, said, self._turn, self._is_over = snapshot
        self._said = list(said)

    def state_key(self) -> str:
        return "/".join((*self._words, "", *self._said))

    def expert_action(self) -> str:
        return self._words[len(self._said)]

    def legal_actions(self) -> list[str]:
        return list(WORDS)

    def check(self, goal: str) -> bool | None:
        return goal.removeprefix("said ") in self._said if goal.startswith("said ") else None

    def _observe(self) -> str:
        return f"say {self._words[len(self._said)]}"


class AsyncEchoEnv(EchoEnv):
    """The same with `async def` methods; a reset to a task with `answer='sleep'` takes forever."""

    async def reset(self, task: Task) -> Observation | str:  # type: ignore[override]
        await asyncio.sleep(60 if task.answer == "sleep" else 0)
        return super().reset(task)

    async def step(self, action: Action) -> Step:  # type: ignore[override]
        await asyncio.sleep(0)
        return super().step(action)


class ThreadEchoEnv(EchoEnv):
    """The same in a thread."""

    runs_in: ClassVar[RunsIn] = "thread"


class ProcessEchoEnv(EchoEnv):
    """The same in a process."""

    runs_in: ClassVar[RunsIn] = "process"


class PlainEnv(Env):
    """Not a dataclass and without abilities: the least that an env can be."""

    def __init__(self, word: str) -> None:
        self.word = word
        self.is_over = True

    def tasks(self, split: Split) -> Sequence[Task]:
        return [Task(id=f"plain/{split}", seed=0, answer=self.word, instruction=split)]

    def reset(self, task: Task) -> str:
        self.is_over = False
        return f"{task.instruction}: what is the word?"

    def step(self, action: Action) -> Step:
        if self.is_over:
            raise RuntimeError("the episode is over")
        self.is_over = True
        return Step(observation="", terminated=True, info={"success": action == self.word})


Fault = Literal[
    "raise", "hang", "garbage", "exit", "killed", "memory", "slow", "nan", "endless", "none"
]

WAKE = threading.Event()
"""Set it to let threads that hang go on."""


@dataclass(kw_only=True)
class BadEnv(EchoEnv):
    """An EchoEnv whose method `at` has a fault, from its `after`-th call on.

    `raise` raises ValueError, `hang` waits for `WAKE` (a minute at most), `garbage` returns a
    number, `exit` ends the process, `killed` kills it as the OOM killer does, `memory` asks for
    more than its limit, `slow` takes a fifth of a second, `nan` rewards NaN, `endless` never ends
    an episode.
    """

    fault: Fault = "raise"
    at: str = "step"
    after: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._calls = 0

    def reset(self, task: Task) -> Observation | str:
        observation = super().reset(task)
        return cast("str", 42) if self._is_bad("reset") else observation

    def step(self, action: Action) -> Step:
        if self.fault == "endless":
            return Step(observation="go on")
        step = super().step(action)
        if not self._is_bad("step"):
            return step
        if self.fault == "nan":
            return Step(
                observation=step.observation,
                reward=math.nan,
                terminated=step.terminated,
                truncated=step.truncated,
                info=step.info,
            )
        return cast("Step", 42)

    def close(self) -> None:
        self._is_bad("close")

    def _is_bad(self, verb: str) -> bool:
        if verb != self.at or self.fault == "none":
            return False
        self._calls += 1
        if self._calls <= self.after:
            return False
        if self.fault == "raise":
            raise ValueError("the dog ate the world")
        if self.fault == "hang":
            WAKE.wait(60)
        if self.fault == "exit":
            os._exit(3)
        if self.fault == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.fault == "memory":
            exhaust_memory()
        if self.fault == "slow":
            time.sleep(0.2)
        return self.fault in ("garbage", "nan")


def exhaust_memory() -> None:
    """Ask for a gigabyte where 64 MiB are allowed. Only in a process of an env's own."""
    if multiprocessing.parent_process() is None:
        raise RuntimeError("this would limit the memory of the tests themselves")
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + (64 << 20)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    bytearray(1 << 30)


class ThreadBadEnv(BadEnv):
    """The same in a thread."""

    runs_in: ClassVar[RunsIn] = "thread"
    timeout_s: ClassVar[float] = 0.5


class ProcessBadEnv(BadEnv):
    """The same in a process."""

    runs_in: ClassVar[RunsIn] = "process"
    timeout_s: ClassVar[float] = 0.5
