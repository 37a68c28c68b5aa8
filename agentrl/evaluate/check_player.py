"""How `check_env.py` plays an env: copies of it, their episodes as values that can be compared."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple, cast

from agentrl.core.errors import AgentRLError, DeadlineError, EnvError
from agentrl.core.protocols import Env, EnvHandle, Runner, abilities
from agentrl.core.types import Action, Observation, Split, Step, Task
from agentrl.rollout.runners import ProcessRunner, ThreadRunner, WorkerThread

GUESSES = ("look", "yes", "no", "0", "1")
"""What is said to an env that names no actions."""
END_TURNS = 500
"""Turns within which an episode is expected to end."""


class CheckFailedError(EnvError):
    """An env does not keep a promise."""


class CheckSkippedError(AgentRLError):
    """A check does not apply to this env; the text says why."""


class Shown(NamedTuple):
    """An observation as plain values: text, hashes of pictures, messages."""

    text: str
    images: tuple[str, ...] = ()
    messages: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, observation: Observation | str) -> Shown:
        """The observation, a bare string included."""
        if isinstance(observation, str):
            return cls(observation)
        spoken = tuple((m.role, m.text) for m in observation.messages or ())
        return cls(observation.text, tuple(i.hash for i in observation.images), spoken)


class Beat(NamedTuple):
    """One turn of an episode, in values that can be compared."""

    observation: Shown
    reward: str
    terminated: bool
    truncated: bool
    success: object
    state_key: object


@dataclass(kw_only=True)
class Bench:
    """The env that is checked, how it is run, and what the checks before learned."""

    env: Env
    split: Split
    count: int
    timeout_s: float
    tasks: list[Task] = field(default_factory=list)
    hangs: int = 0

    @property
    def able(self) -> frozenset[str]:
        """The env's optional methods."""
        return abilities(self.env)

    def need(self, *verbs: str) -> None:
        """Skip the check unless the env has these methods."""
        missing = [verb for verb in verbs if verb not in self.able]
        if missing:
            raise CheckSkippedError(f"it has no {' and no '.join(missing)}")

    async def read(self, split: Split, count: int) -> tuple[int, list[Task]]:
        """Length of a split and its first `count` tasks, read in a thread that can be given up."""

        def first(_: asyncio.Runner) -> tuple[int, list[Task]]:
            found = self.env.tasks(split)
            return len(found), [found[index] for index in range(min(count, len(found)))]

        worker = WorkerThread("check-env tasks")
        try:
            async with asyncio.timeout(self.timeout_s):
                return cast("tuple[int, list[Task]]", await worker.run(first))
        except AgentRLError:
            raise
        except TimeoutError as error:
            raise DeadlineError(
                f"tasks({split!r}) gave no {count} tasks within {self.timeout_s:g} s: make it lazy"
            ) from error
        except Exception as error:
            raise CheckFailedError(
                f"tasks({split!r}) raised {type(error).__name__}: {error}"
            ) from error
        finally:
            worker.stop()

    @asynccontextmanager
    async def player(self, runner: Runner | None = None) -> AsyncIterator[Player]:
        """A fresh copy of the env, closed afterwards."""
        if runner is None:
            runner = ProcessRunner() if self.env.runs_in == "process" else ThreadRunner()
        handle = await runner.open(self.env)
        player = Player(bench=self, runner=runner, handle=handle)
        try:
            yield player
        except BaseException:
            await runner.close(handle, is_broken=True)
            raise
        await runner.close(handle)


@dataclass(kw_only=True)
class Player:
    """One open copy of the env."""

    bench: Bench
    runner: Runner
    handle: EnvHandle

    async def call(self, verb: str, *args: object) -> object:
        """Call a method, with the bench's deadline."""
        return await self.runner.call(self.handle, verb, *args, timeout_s=self.bench.timeout_s)

    async def reset(self, task: Task) -> Shown:
        """Begin a task."""
        return Shown.of(cast("Observation | str", await self.call("reset", task)))

    async def step(self, action: Action) -> Step:
        """Act."""
        return cast("Step", await self.call("step", action))

    async def state_key(self) -> object:
        """The state's name, or None if the env gives none."""
        return await self.call("state_key") if "state_key" in self.bench.able else None

    async def choose(self, task: Task, rng: Random, *, ask_expert: bool = False) -> Action:
        """An action to go on with: the expert's if asked for, a legal one, or a guess."""
        if ask_expert and "expert_action" in self.bench.able:
            return cast("Action", await self.call("expert_action"))
        if "legal_actions" in self.bench.able:
            legal = cast("Sequence[Action]", await self.call("legal_actions"))
            if legal:
                return rng.choice(legal)
        if "expert_action" in self.bench.able:
            return cast("Action", await self.call("expert_action"))
        return rng.choice([*GUESSES, task.answer or GUESSES[0]])

    async def beat(self, action: Action) -> Beat:
        """Act and note what came."""
        step = await self.step(action)
        return Beat(
            observation=Shown.of(step.observation),
            reward=repr(float(step.reward)),
            terminated=bool(step.terminated),
            truncated=bool(step.truncated),
            success=step.info.get("success"),
            state_key=await self.state_key(),
        )

    async def improvise(self, task: Task, turns: int) -> tuple[list[Action], list[Beat]]:
        """Go on with chosen actions until the end, `turns` at most."""
        rng, actions, beats = Random(task.id), list[Action](), list[Beat]()
        while len(beats) < turns and not (beats and is_end(beats[-1])):
            actions.append(await self.choose(task, rng))
            beats.append(await self.beat(actions[-1]))
        return actions, beats

    async def repeat(self, actions: Sequence[Action]) -> list[Beat]:
        """Go on with given actions, until the end."""
        beats: list[Beat] = []
        for action in actions:
            if beats and is_end(beats[-1]):
                break
            beats.append(await self.beat(action))
        return beats

    async def finish(self, task: Task) -> list[Step]:
        """Play to the end, by the expert if there is one."""
        rng, steps = Random(task.id), list[Step]()
        while len(steps) < END_TURNS:
            steps.append(await self.step(await self.choose(task, rng, ask_expert=True)))
            if steps[-1].terminated or steps[-1].truncated:
                break
        return steps


def is_end(beat: Beat) -> bool:
    """Whether the episode ended with this turn."""
    return beat.terminated or beat.truncated


def same(what: str, task: Task, expected: Sequence[Beat], got: Sequence[Beat]) -> None:
    """Raise `CheckFailedError` at the first difference."""
    for turn, (one, other) in enumerate(zip(expected, got, strict=False)):
        for name in Beat._fields:
            if getattr(one, name) != getattr(other, name):
                raise CheckFailedError(
                    f"{what}: turn {turn} of task {task.id} differs in its {name}: "
                    f"{getattr(one, name)!r:.120} against {getattr(other, name)!r:.120}"
                )


def require(condition: object, message: str) -> None:
    """Raise `CheckFailedError` unless the condition holds."""
    if not condition:
        raise CheckFailedError(message)
