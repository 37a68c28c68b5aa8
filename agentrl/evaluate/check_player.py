"""How the checks of `check_env.py` play an env, and how they say what is wrong with it.

Envs that run in a process are checked in processes, which are lent from check to check; all others
in threads, so that a call that hangs can be given up.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple, cast

from agentrl.core.errors import AgentRLError, DeadlineError, EnvError
from agentrl.core.protocols import Env, EnvHandle, Runner, abilities
from agentrl.core.types import Action, Observation, Split, Step, Task
from agentrl.rollout.runners import (
    EnvPool,
    EnvRaisedError,
    ProcessRunner,
    ThreadRunner,
    WorkerThread,
)

GUESSES = ("look", "yes", "no", "0", "1")
"""What is said to an env that names no actions."""
END_TURNS = 500
"""Turns within which an episode is expected to end."""
TURNS = 30
"""Turns of an episode that are compared, fewer if they take more than `TURNS_S` seconds."""
TURNS_S = 2.0
FEWEST = 3
"""Turns that are compared however long they take."""
WANDER_S = 30.0
"""Seconds after which the episodes of a wanderer are left off; the first one goes on this long."""


class CheckFailedError(EnvError):
    """An env does not keep a promise: what was expected, what came, where, how to mend it."""

    def __init__(self, expected: str, *, got: str, mend: str, where: str = "") -> None:
        place = f" ({where})" if where else ""
        super().__init__(f"expected {expected}, got {got}{place}: {mend}")
        self.expected, self.got, self.where, self.mend = expected, got, where, mend


class CheckSkippedError(AgentRLError):
    """A check does not apply to this env; the text says why."""


def require(condition: object, expected: str, *, got: str, mend: str, where: str = "") -> None:
    """Raise `CheckFailedError` unless the condition holds."""
    if not condition:
        raise CheckFailedError(expected, got=got, mend=mend, where=where)


class Shown(NamedTuple):
    """An observation as plain values: text, hashes of pictures, messages."""

    text: str
    images: tuple[str, ...] = ()
    messages: tuple[tuple[str, str], ...] = ()

    def __repr__(self) -> str:
        said = [f"{role}: {text}" for role, text in self.messages]
        parts = [repr(self.text), *(f"picture {image}" for image in self.images), *said]
        return ", ".join(parts)

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


class Episode(NamedTuple):
    """A task played to its end, or through END_TURNS turns, or as long as it is given."""

    task: Task
    by_expert: bool
    shown: Shown
    """What reset showed."""
    steps: list[Step]


@dataclass(kw_only=True)
class Bench:
    """The env that is checked, how it is run, and what the checks before learned."""

    env: Env
    split: Split
    count: int
    timeout_s: float
    may_spawn: bool = True
    """Whether an env that does not run in processes may be tried in one."""
    tasks: list[Task] = field(default_factory=list)
    breaks: int = 0
    """Checks in which a call hung or the env's process died."""
    episodes: list[Episode] = field(default_factory=list)
    shortest: int = TURNS
    """Turns of the shortest episode that was left off because its turns took long."""
    processes: EnvPool = field(init=False)

    def __post_init__(self) -> None:
        self.processes = EnvPool(ProcessRunner(), self.env)

    @property
    def able(self) -> frozenset[str]:
        """The env's optional methods."""
        return abilities(self.env)

    def need(self, *verbs: str) -> None:
        """Skip the check unless the env has these methods."""
        missing = [verb for verb in verbs if verb not in self.able]
        if missing:
            raise CheckSkippedError(f"it has no {' and no '.join(missing)}")

    async def read(self, split: Split, count: int, env: Env | None = None) -> Sequence[Task]:
        """A split whose first `count` tasks were read, in a thread that can be given up.

        Raises:
            DeadlineError: that took longer than the bench's deadline.
            CheckFailedError: `tasks` raised.
        """
        asked = env or self.env

        def first(_: asyncio.Runner) -> Sequence[Task]:
            found = asked.tasks(split)
            for index in range(min(count, len(found))):
                found[index]
            return found

        worker = WorkerThread("check-env tasks")
        try:
            async with asyncio.timeout(self.timeout_s):
                return cast("Sequence[Task]", await worker.run(first))
        except AgentRLError:
            raise
        except TimeoutError as error:
            raise DeadlineError(
                f"tasks({split!r}) gave no {count} tasks within {self.timeout_s:g} s"
            ) from error
        except Exception as error:
            raise CheckFailedError(
                f"tasks({split!r}) to return tasks",
                got=f"{type(error).__name__}: {error}",
                mend="make it return a sequence of Task for each of train, dev and test",
            ) from error
        finally:
            worker.stop()

    async def first(self, split: Split, count: int, env: Env | None = None) -> list[Task]:
        """The first `count` tasks of a split, fewer if it is shorter."""
        found = await self.read(split, count, env)
        return [found[index] for index in range(min(count, len(found)))]

    @asynccontextmanager
    async def player(self, runner: Runner | None = None) -> AsyncIterator[Player]:
        """An open copy of the env for the time of a check: a fresh one, but for processes."""
        if runner is None and self.env.runs_in == "process":
            async with self.elsewhere() as player:
                yield player
            return
        runner = runner or ThreadRunner()
        handle = await runner.open(self.env)
        try:
            yield Player(bench=self, runner=runner, handle=handle)
        except BaseException:
            await runner.close(handle, is_broken=True)
            raise
        await runner.close(handle)

    @asynccontextmanager
    async def elsewhere(self) -> AsyncIterator[Player]:
        """A copy of the env in another process; skips if this env cannot go there."""
        if self.env.runs_in != "process" and not self.may_spawn:
            raise CheckSkippedError("no process may be started")
        try:
            handle = await self.processes.acquire()
        except EnvError as error:
            if self.env.runs_in == "process":
                raise
            raise CheckSkippedError(str(error)) from error
        player = Player(bench=self, runner=ProcessRunner(), handle=handle)
        is_broken = True
        try:
            yield player
            is_broken = player.is_closed
        finally:
            await self.processes.release(handle, is_broken=is_broken)

    async def played(self) -> list[Episode]:
        """Episodes of every task, played once for all checks: the expert's, and a wanderer's."""
        if not self.episodes:
            by_experts = self.tasks if "expert_action" in self.able else []
            async with self.player() as player:
                episodes = [await player.finish(task, as_expert=True) for task in by_experts]
                until = time.monotonic() + WANDER_S
                for number, task in enumerate(self.tasks):
                    if not number or time.monotonic() < until:
                        episodes.append(await player.finish(task, as_expert=False))
            self.episodes = episodes
        return self.episodes

    async def close(self) -> None:
        """End the processes."""
        await self.processes.close()


@dataclass(kw_only=True)
class Player:
    """One open copy of the env."""

    bench: Bench
    runner: Runner
    handle: EnvHandle
    is_closed: bool = False
    """The env was closed last: it is not lent to the next check."""

    async def call(self, verb: str, *args: object) -> object:
        """Call a method, with the bench's deadline."""
        self.is_closed = verb == "close"
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

    async def echo(self, action: Action) -> Beat:
        """Act as it was done before; what is raised is an answer that ends the episode."""
        try:
            return await self.beat(action)
        except EnvRaisedError as error:
            return Beat(Shown(str(error)), "nan", True, False, None, None)

    async def improvise(self, task: Task, turns: int = TURNS) -> tuple[list[Action], list[Beat]]:
        """Go on with chosen actions until the end, for `turns` at most, and for `TURNS_S` seconds
        unless fewer than `FEWEST` turns were played then."""
        rng, actions, beats = Random(task.id), list[Action](), list[Beat]()
        until = time.monotonic() + TURNS_S
        while len(beats) < turns and not (beats and ended(beats[-1])):
            if len(beats) >= FEWEST and time.monotonic() > until:
                self.bench.shortest = min(self.bench.shortest, len(beats))
                break
            actions.append(await self.choose(task, rng))
            beats.append(await self.beat(actions[-1]))
        return actions, beats

    async def repeat(self, actions: Sequence[Action]) -> list[Beat]:
        """Go on with given actions, until the end."""
        beats: list[Beat] = []
        for action in actions:
            if beats and ended(beats[-1]):
                break
            beats.append(await self.echo(action))
        return beats

    async def finish(self, task: Task, *, as_expert: bool) -> Episode:
        """Play a task to its end; END_TURNS turns at most, and a wanderer for WANDER_S seconds."""
        rng, steps = Random(task.id), list[Step]()
        shown = await self.reset(task)
        until = time.monotonic() + (math.inf if as_expert else WANDER_S)
        while len(steps) < END_TURNS and not (steps and ended(steps[-1])):
            if steps and time.monotonic() > until:
                break
            steps.append(await self.step(await self.choose(task, rng, ask_expert=as_expert)))
        return Episode(task, as_expert, shown, steps)


def ended(turn: Beat | Step) -> bool:
    """Whether the episode ended with this turn."""
    return bool(turn.terminated or turn.truncated)


def same(what: str, mend: str, task: Task, expected: Sequence[Beat], got: Sequence[Beat]) -> None:
    """Raise `CheckFailedError` at the first difference between two runs of the same actions."""
    for turn, (one, other) in enumerate(zip(expected, got, strict=False)):
        for name in Beat._fields:
            if getattr(one, name) != getattr(other, name):
                raise CheckFailedError(
                    f"{what} to give the {name} {getattr(one, name)!r:.200}",
                    got=f"{getattr(other, name)!r:.200}",
                    where=f"turn {turn} of task {task.id}",
                    mend=mend,
                )
