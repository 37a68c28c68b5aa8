"""Checks of an env among others: other copies, other processes, runners and their deadlines."""

from __future__ import annotations

import asyncio
import inspect
import math
import os
import random
import sys
import threading
import time
from collections.abc import Awaitable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from agentrl.core.errors import DeadlineError, EnvError
from agentrl.core.protocols import Env, Runner
from agentrl.core.types import Action, Observation, Split, Step, Task
from agentrl.evaluate.check_episodes import SEEDED
from agentrl.evaluate.check_player import (
    Beat,
    Bench,
    CheckSkippedError,
    Player,
    require,
    same,
)
from agentrl.rollout.process import Recipe
from agentrl.rollout.runners import RUNNERS, ThreadRunner, runner_for

HANG_S = 0.1
"""Deadline of a step that never returns, and how much later than that it may be cut."""
SLACK_S = 2.0
MOST_S = 3_600.0
"""The longest `timeout_s` that counts as a deadline."""


async def runs_where_it_says(bench: Bench) -> str:
    """The env opens in the runner that `runs_in` names."""
    runner = runner_for(bench.env)
    if bench.env.runs_in == "process":
        async with bench.player() as player:
            await player.reset(bench.tasks[0])
    else:
        async with bench.player(runner) as player:
            await player.reset(bench.tasks[0])
    return bench.env.runs_in


async def every_runner_gives_the_same_episode(bench: Bench) -> str:
    """In its declared runner an episode is what it is elsewhere in this process."""
    if bench.env.runs_in == "process":
        raise CheckSkippedError("it runs in processes only")
    turns = 0
    async with AsyncExitStack() as stack:
        there = await stack.enter_async_context(bench.player())
        here = await stack.enter_async_context(bench.player(runner_for(bench.env, "inline")))
        for task in bench.tasks:
            await there.reset(task)
            actions, beats = await there.improvise(task)
            await here.reset(task)
            mend = "keep nothing in thread-local variables, or open it on the first reset"
            same("the inline runner", mend, task, beats, await here.repeat(actions))
            turns += len(beats)
    return f"{turns} turns in a thread and inline"


async def another_process_gives_the_same_episode(bench: Bench) -> str:
    """In a new interpreter a task is the same episode."""
    mend = f"{SEEDED}; sort sets before using them (their order differs between processes)"
    turns = 0
    async with bench.player() as here, bench.elsewhere() as there:
        for task in bench.tasks:
            first, other = await here.reset(task), await there.reset(task)
            require(
                first == other,
                f"another process to begin with {first!r:.120}",
                got=f"{other!r:.120}",
                where=f"reset of task {task.id}",
                mend=mend,
            )
            actions, beats = await here.improvise(task)
            repeated = await there.repeat(actions)
            bare = [[b._replace(state_key=None) for b in each] for each in (beats, repeated)]
            same("another process", mend, task, *bare)
            turns += len(beats)
    return f"{turns} turns"


async def state_keys_hold_in_other_processes(bench: Bench) -> str:
    """Another interpreter gives a state the same key."""
    bench.need("state_key")
    keys = 0
    async with bench.player() as here, bench.elsewhere() as there:
        for task in bench.tasks:
            await here.reset(task)
            await there.reset(task)
            pairs = [(await here.state_key(), await there.state_key())]
            actions, beats = await here.improvise(task, 3)
            repeated = await there.repeat(actions)
            pairs += [(a.state_key, b.state_key) for a, b in zip(beats, repeated, strict=True)]
            for turn, (one, other) in enumerate(pairs):
                require(
                    one == other,
                    f"the key {one!r:.80} in another process too",
                    got=f"{other!r:.80}",
                    where=f"{turn} turns into task {task.id}",
                    mend="use hashlib: Python's hash() and the order of sets differ by process",
                )
            keys += len(pairs)
    return f"{keys} keys"


async def copies_share_nothing(bench: Bench) -> str:
    """Two copies that play in turns answer as each does alone."""
    task, other = bench.tasks[0], bench.tasks[-1]
    async with bench.player() as one, bench.player() as two:
        alone = []
        for each in (task, other):
            await one.reset(each)
            alone.append(await one.improvise(each))
        await one.reset(task)
        await two.reset(other)
        together = await _in_turns((one, alone[0][0]), (two, alone[1][0]))
        for each, (_, beats), got in zip((task, other), alone, together, strict=True):
            mend = "keep state in instance attributes that reset sets, not in the class or module"
            same("a copy beside another one", mend, each, beats, got)
    return "two copies"


async def _in_turns(*parts: tuple[Player, list[Action]]) -> list[list[Beat]]:
    beats: list[list[Beat]] = [[] for _ in parts]
    for turn in range(max(len(actions) for _, actions in parts)):
        for (player, actions), heard in zip(parts, beats, strict=True):
            if turn < len(actions):
                heard.append(await player.echo(actions[turn]))
    return beats


async def global_randomness_is_untouched(bench: Bench) -> str:
    """Playing leaves the generators of `random`, numpy and torch as they were."""
    if bench.env.runs_in == "process":
        raise CheckSkippedError("it runs in processes of its own")
    task = bench.tasks[0]
    async with bench.player() as player:
        before = _generators()
        await player.reset(task)
        await player.improvise(task)
        after = _generators()
    touched = [name for name in before if before[name] != after[name]]
    require(
        not touched,
        "global random generators to be left alone",
        got=f"a changed state of {', '.join(touched)}",
        where=f"an episode of task {task.id}",
        mend="use random.Random(task.seed), numpy.random.default_rng or a torch.Generator",
    )
    return ", ".join(before)


def _generators() -> dict[str, object]:
    states: dict[str, object] = {"random": random.getstate()}
    if "numpy" in sys.modules:
        states["numpy"] = str(sys.modules["numpy"].random.get_state())
    if "torch" in sys.modules:
        states["torch"] = sys.modules["torch"].get_rng_state().tolist()
    return states


async def closing_gives_back_what_was_open(bench: Bench) -> str:
    """Opening, playing and closing once more leaves no further thread or file open."""
    if bench.env.runs_in == "process":
        raise CheckSkippedError("its process ends with it")
    counts = []
    for _ in range(3):  # the first may load what stays, such as fonts
        async with bench.player() as player:
            await player.reset(bench.tasks[0])
            await player.improvise(bench.tasks[0], 3)
        counts.append((threading.active_count(), len(os.listdir("/dev/fd"))))
    (threads, files), (more_threads, more_files) = counts[-2:]
    require(
        more_threads <= threads and more_files <= files,
        f"{threads} threads and {files} open files after another episode",
        got=f"{more_threads} threads and {more_files} open files",
        where=f"after closing in mid-episode of task {bench.tasks[0].id}",
        mend="stop threads and close files, sockets and browsers in close()",
    )
    return ""


async def a_hanging_step_is_cut(bench: Bench) -> str:
    """The env has a deadline, and its runner cuts a step that never returns."""
    timeout_s = bench.env.timeout_s
    require(
        math.isfinite(timeout_s) and 0 < timeout_s <= MOST_S,
        f"a timeout_s between 0 and {MOST_S:g} s",
        got=f"{timeout_s}",
        where=f"{type(bench.env).__name__}.timeout_s",
        mend="set the seconds after which a call is given up",
    )
    env = HangingEnv(recipe=Recipe.of(bench.env))
    if bench.env.runs_in not in RUNNERS:
        raise CheckSkippedError("it names no runner")
    runner, note = runner_for(bench.env), ""
    if bench.env.runs_in == "inline" and not inspect.iscoroutinefunction(bench.env.step):
        runner, note = ThreadRunner(), " in a thread (inline a call that never returns blocks all)"
    seconds = await _cut(bench, runner, env)
    async with bench.player() as player:
        await player.reset(bench.tasks[0])
    return f"after {seconds:.2f} s{note}"


async def _cut(bench: Bench, runner: Runner, env: HangingEnv) -> float:
    handle = await runner.open(env)
    try:
        await runner.call(handle, "reset", bench.tasks[0], timeout_s=bench.timeout_s)
        began = time.monotonic()
        try:
            await runner.call(handle, "step", "", timeout_s=HANG_S)
        except DeadlineError:
            seconds = time.monotonic() - began
        else:
            raise EnvError("a step that hangs returned")
    finally:
        WAKE.set()
        await runner.close(handle, is_broken=True)
        WAKE.clear()
    require(
        seconds < HANG_S + SLACK_S,
        f"a step to be given up after {HANG_S:g} s",
        got=f"{seconds:.2g} s",
        where=f"runs_in={bench.env.runs_in!r}",
        mend="choose runs_in='process', whose calls are killed",
    )
    return seconds


WAKE = threading.Event()
"""Set when hanging steps in threads may go on."""


@dataclass(kw_only=True)
class HangingEnv(Env):
    """Another env whose step never returns."""

    recipe: Recipe
    inner: Env = field(init=False)

    def tasks(self, split: Split) -> list[Task]:
        """None: it is reset to tasks of the inner env."""
        return []

    def reset(self, task: Task) -> Observation | str | Awaitable[Observation | str]:
        """The inner env's."""
        self.inner = self.recipe.make()
        return self.inner.reset(task)

    def step(self, action: Action) -> Step | Awaitable[Step]:
        """Hang as the inner env would: in a coroutine, or in a call."""
        if inspect.iscoroutinefunction(type(self.inner).step):
            return self._sleep()
        WAKE.wait(60)
        return Step(observation="")

    async def _sleep(self) -> Step:
        await asyncio.sleep(60)
        return Step(observation="")

    def close(self) -> Awaitable[None] | None:
        """Close the inner env."""
        return self.inner.close()
