"""Faults for the rollout to survive: an env that breaks once, engines and rewards that break."""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import ClassVar, Literal

from agentrl.core.errors import EngineError
from agentrl.core.protocols import Completion, RunsIn, SamplingParams
from agentrl.core.types import Action, Image, Observation, Score, Step, Task, Trajectory
from agentrl.engines.scripted import Scripted
from support.envs import WORDS, BadEnv, EchoEnv
from support.play import says

HANG_S = 60.0


@dataclass(kw_only=True)
class OnceBadEnv(BadEnv):
    """A BadEnv of which one instance breaks, once: the first that can make the file `claim`."""

    runs_in: ClassVar[RunsIn] = "inline"

    claim: str

    def _is_bad(self, verb: str) -> bool:
        if verb != self.at or self.fault == "none":
            return False
        return is_first(self.claim) and super()._is_bad(verb)


@dataclass(kw_only=True)
class SlowEnv(EchoEnv):
    """An EchoEnv whose calls take random times, different in every process and at every call."""

    runs_in: ClassVar[RunsIn] = "thread"

    most_s: float = 0.02

    def reset(self, task: Task) -> Observation | str:
        time.sleep(Random().uniform(0.0, self.most_s))
        return super().reset(task)

    def step(self, action: Action) -> Step:
        time.sleep(Random().uniform(0.0, self.most_s))
        return super().step(action)


EngineFault = Literal[
    "raise", "crash", "hang", "nan", "empty", "short", "versions", "garbage", "late_end"
]


@dataclass(kw_only=True)
class BadEngine(Scripted):
    """A scripted engine that fails the episodes `broken` at their `at`-th call."""

    fault: EngineFault = "raise"
    broken: frozenset[int] = frozenset({1})
    at: int = 0
    ended: list[int] = field(default_factory=list)

    async def generate(
        self,
        prompt_ids: Sequence[int],
        params: SamplingParams,
        *,
        episode: int,
        group: int,
        images: Sequence[Image] | None = None,
    ) -> Completion:
        is_due = episode in self.broken and self._asked.get(episode, 0) >= self.at
        answer = await super().generate(
            prompt_ids, params, episode=episode, group=group, images=images
        )
        return await self._spoil(answer) if is_due else answer

    async def _spoil(self, answer: Completion) -> Completion:
        if self.fault == "raise":
            raise EngineError("out of memory")
        if self.fault == "crash":
            raise ConnectionResetError("the server went away")
        if self.fault == "hang":
            await asyncio.sleep(HANG_S)
        if self.fault == "nan":
            return replace(answer, logprobs=(math.nan,) * len(answer.ids))
        if self.fault == "empty":
            return replace(answer, ids=(), logprobs=(), versions=())
        if self.fault == "short":
            return replace(answer, logprobs=answer.logprobs[:-1])
        if self.fault == "versions":
            return replace(answer, versions=((0, len(answer.ids) + 1),))
        if self.fault == "garbage":
            return "ant"  # type: ignore[return-value]
        return answer

    async def end(self, episode: int) -> None:
        self.ended.append(episode)
        if self.fault == "late_end" and episode in self.broken:
            raise ConnectionResetError("the server went away")
        await super().end(episode)


@dataclass(frozen=True, kw_only=True)
class BadReward:
    """Pays the env's return, but for unsolved episodes gives `answer`, or raises it, or hangs."""

    answer: object = None

    async def __call__(self, trajectory: Trajectory) -> Score | float | None:
        if trajectory.success:
            return trajectory.env_return
        if self.answer == "hang":
            await asyncio.sleep(HANG_S)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer  # type: ignore[return-value]


@dataclass(frozen=True, kw_only=True)
class Judge:
    """A group reward: the share of siblings that an episode beats, or `answer` for all of them."""

    answer: object = None

    async def __call__(self, trajectory: Trajectory) -> float:
        raise AssertionError("a judge is asked for the group only")

    async def score_group(
        self, trajectories: Sequence[Trajectory]
    ) -> Sequence[Score | float | None]:
        if self.answer == "hang":
            await asyncio.sleep(HANG_S)
        if isinstance(self.answer, Exception):
            raise self.answer
        if self.answer is not None:
            return self.answer  # type: ignore[return-value]
        returns = [trajectory.env_return for trajectory in trajectories]
        return [float(sum(other < own for other in returns)) for own in returns]


@dataclass(kw_only=True)
class DiceEngine(Scripted):
    """Says a word drawn by the request's seed alone, and remembers who was asked together."""

    words: tuple[str, ...] = WORDS
    batches: list[list[int]] = field(default_factory=list)

    _is_open: bool = field(default=False, init=False, repr=False, compare=False)

    async def generate(
        self,
        prompt_ids: Sequence[int],
        params: SamplingParams,
        *,
        episode: int,
        group: int,
        images: Sequence[Image] | None = None,
    ) -> Completion:
        if not self._is_open:
            self._is_open = True
            self.batches.append([])
            asyncio.get_running_loop().call_soon(self._close_batch)
        self.batches[-1].append(episode)
        await asyncio.sleep(0.001)
        return says(Random(params.seed).choice(self.words))

    def _close_batch(self) -> None:
        self._is_open = False


# --- parts of whole runs, each of which breaks once -----------------------------------------------


def is_first(claim: str) -> bool:
    """Whether nobody asked before with this file's name, in any process."""
    try:
        os.close(os.open(claim, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except FileExistsError:
        return False
    return True


@dataclass(frozen=True, kw_only=True)
class OnceBadReward:
    """Pays the env's return, but fails once: when it first makes the file `claim`."""

    fault: Literal["raise", "hang", "nan", "garbage"] = "raise"
    claim: str = ""

    async def __call__(self, trajectory: Trajectory) -> Score | float | None:
        if not is_first(self.claim):
            return trajectory.env_return
        if self.fault == "raise":
            raise ValueError("no verdict")
        if self.fault == "hang":
            await asyncio.sleep(HANG_S)
        return math.nan if self.fault == "nan" else "ten points"  # type: ignore[return-value]
