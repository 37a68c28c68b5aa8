"""Many envs at once: deadlines hold, one that breaks costs itself only, nothing stays behind."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest

from agentrl.core.protocols import Env, RunsIn
from agentrl.core.types import Action, Group, Step, Stop, Task
from agentrl.rollout.runners import EnvPool, ProcessRunner, ThreadRunner
from support import WAKE, AsyncEchoEnv, EchoEnv
from support.held import Held
from support.play import collect, engine_agent, right, table, worker

TASK = EchoEnv().tasks("train")[10]
SOLVES = {-1: right(TASK)}
FILES = 1024
"""What a process may open on most machines."""


@pytest.fixture(autouse=True)
def nothing_stays_behind() -> Iterator[None]:
    """Threads, files and processes are as before."""
    before = Held.now()
    yield
    WAKE.set()
    try:
        assert before.more() == ""
    finally:
        WAKE.clear()


def stops(groups: list[Group]) -> Counter[Stop]:
    return Counter(t.stop for group in groups for t in group.trajectories)


@dataclass(kw_only=True)
class NapEnv(EchoEnv):
    """An EchoEnv that sleeps at every step, or hangs in tasks with `answer='hang'`."""

    runs_in: ClassVar[RunsIn] = "thread"

    nap_s: float = 0.01

    def step(self, action: Action) -> Step:
        if self._hangs:
            WAKE.wait(60)
        time.sleep(self.nap_s)
        return super().step(action)

    def reset(self, task: Task) -> str:
        self._hangs = task.answer == "hang"
        return str(super().reset(task))


def resident_mib() -> float:
    """What this process has in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


# --- inline ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("env", [EchoEnv(), AsyncEchoEnv()], ids=lambda env: type(env).__name__)
def test_a_thousand_inline_episodes_at_once_cost_little_memory(env: Env) -> None:
    before = resident_mib()
    groups = collect(worker(env), SOLVES, [TASK] * 125, group_size=8)
    assert stops(groups) == {Stop.DONE: 1000}
    assert all(t.success for group in groups for t in group.trajectories)
    assert resident_mib() - before < 200


def test_among_many_inline_coroutines_the_ones_that_hang_are_cut_in_time() -> None:
    stuck = replace(TASK, id="stuck", answer="sleep")
    by = worker(AsyncEchoEnv(), at=table(env_timeout_s=2.0))
    began = time.monotonic()
    groups = collect(by, SOLVES, [TASK, TASK, stuck, TASK], group_size=50)
    assert time.monotonic() - began < 2 * 2.0
    assert stops(groups) == {Stop.DONE: 150, Stop.TIMEOUT: 50}


# --- threads --------------------------------------------------------------------------------------


def test_threads_wait_side_by_side_and_open_no_files() -> None:
    counts: list[int] = []

    async def whole() -> list[Group]:
        by = worker(NapEnv(nap_s=0.05))
        groups = await by.collect(
            [TASK] * 25, agent=engine_agent(SOLVES), group_size=8, label="train"
        )
        counts.append(len(os.listdir("/proc/self/fd")))
        await by.close()
        return groups

    files = len(os.listdir("/proc/self/fd"))
    began = time.monotonic()
    groups = asyncio.run(whole())
    assert time.monotonic() - began < 200 * 2 * 0.05 / 2
    assert stops(groups) == {Stop.DONE: 200}
    assert counts[0] - files < 20, "so that a thousand threads stay below the limit of files"


def test_deadlines_of_threads_hold_under_load_and_the_others_go_on() -> None:
    stuck = replace(TASK, id="stuck", answer="hang")
    by = worker(NapEnv(), at=table(env_timeout_s=2.0))
    groups = collect(by, SOLVES, [TASK] * 9 + [stuck], group_size=10)
    assert stops(groups) == {Stop.DONE: 90, Stop.TIMEOUT: 10}
    assert max(t.seconds for t in groups[-1].trajectories) < 2 * 2.0


def test_threads_are_lent_again() -> None:
    async def whole() -> tuple[int, int]:
        by = worker(NapEnv(nap_s=0.0), in_flight=10)
        for step in range(5):
            groups = await by.collect(
                [TASK] * 4, agent=engine_agent(SOLVES), group_size=10, label="train", step=step
            )
            assert stops(groups) == {Stop.DONE: 40}
        size, threads = by.pool.size, threading.active_count()
        await by.close()
        return size, threads

    before = threading.active_count()
    size, threads = asyncio.run(whole())
    assert (size, threads - before) == (10, 10)


# --- processes ------------------------------------------------------------------------------------


class ProcessNapEnv(NapEnv):
    """The same in a process."""

    runs_in: ClassVar[RunsIn] = "process"


@pytest.mark.slow
@pytest.mark.parametrize("at_once", [2, 8])
def test_processes_are_bounded_lent_again_and_a_killed_one_costs_its_episode(at_once: int) -> None:
    most: list[int] = []

    async def whole() -> tuple[list[Group], list[Group]]:
        by = worker(ProcessNapEnv(nap_s=0.1), in_flight=at_once)
        watch = asyncio.create_task(_watch(most))
        playing = asyncio.create_task(
            by.collect([TASK] * 4, agent=engine_agent(SOLVES), group_size=at_once, label="train")
        )
        while not (serving := _serving()):
            await asyncio.sleep(0.01)
        os.kill(serving[0], signal.SIGKILL)
        first = await playing
        second = await by.collect(
            [TASK], agent=engine_agent(SOLVES), group_size=at_once, label="train", step=1
        )
        watch.cancel()
        await by.close()
        return first, second

    first, second = asyncio.run(whole())
    assert stops(first) == {Stop.DONE: 4 * at_once - 1, Stop.ERROR: 1}
    [broken] = [t for group in first for t in group.trajectories if t.failure is not None]
    assert broken.failure is not None
    assert "was killed by signal 9" in broken.failure.error
    assert stops(second) == {Stop.DONE: at_once}
    assert max(most) <= at_once


async def _watch(counts: list[int]) -> None:
    while True:
        counts.append(len(multiprocessing.active_children()))
        await asyncio.sleep(0.01)


def _serving() -> list[int]:
    """Env processes that have begun to serve: they lead sessions of their own."""
    pids = [child.pid for child in multiprocessing.active_children() if child.pid]
    return [pid for pid in pids if os.getpgid(pid) == pid]


@pytest.mark.slow
def test_many_processes_are_opened_a_few_at_a_time() -> None:
    """Their deadline to open does not count the wait for a core."""

    async def whole() -> int:
        pool = EnvPool(ProcessRunner(), ProcessNapEnv())
        envs = await asyncio.gather(*(pool.acquire() for _ in range(12)))
        size = pool.size
        for env in envs:
            await pool.release(env)
        await pool.close()
        return size

    assert asyncio.run(whole()) == 12


# --- cancelling -----------------------------------------------------------------------------------


@pytest.mark.parametrize("env", [AsyncEchoEnv(), NapEnv(nap_s=0.2), ProcessNapEnv(nap_s=0.2)])
@pytest.mark.parametrize("after_s", [0.0, 0.3])
def test_a_collection_that_is_cancelled_leaves_nothing(env: EchoEnv, after_s: float) -> None:
    tasks = [TASK, replace(TASK, id="stuck", answer="sleep" if env.runs_in == "inline" else "hang")]
    size = 2 if env.runs_in == "process" else 40

    async def whole() -> None:
        by = worker(env)
        playing = asyncio.create_task(
            by.collect(tasks, agent=engine_agent(SOLVES), group_size=size, label="train")
        )
        await asyncio.sleep(after_s)
        playing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await playing
        await by.close()

    began = time.monotonic()
    asyncio.run(whole())
    assert time.monotonic() - began < 10


def test_an_interrupt_in_the_middle_leaves_nothing() -> None:
    stuck = replace(TASK, id="stuck", answer="hang")
    by = worker(NapEnv(nap_s=0.05))
    here = threading.get_ident()
    timer = threading.Timer(0.3, signal.pthread_kill, [here, signal.SIGINT])
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            collect(by, SOLVES, [TASK, stuck], group_size=20)
    finally:
        signal.signal(signal.SIGINT, handler)
        timer.join()
    assert by.pool.size == 0


def test_an_env_given_back_meanwhile_is_taken_instead_of_opening_another() -> None:
    async def whole() -> int:
        pool = EnvPool(ThreadRunner(), NapEnv())
        first = await pool.acquire()
        waiting = [asyncio.create_task(pool.acquire()) for _ in range(50)]
        await pool.release(first)
        lent = await asyncio.gather(*waiting)
        assert first in lent
        size = pool.size
        await pool.close()
        return size

    assert asyncio.run(whole()) == 50
