"""The fault matrix: whatever breaks, the episode that it broke is counted and the rest goes on.

A fault x a runner: the one sibling that it hits ends as a `Failure` of the boundary that broke,
within twice its deadline; its siblings are played and scored; its env is not lent again; nothing is
left behind.
"""

from __future__ import annotations

import asyncio
import logging
import math
import multiprocessing
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from agentrl.core.protocols import RunsIn
from agentrl.core.types import Group, Stop
from agentrl.rollout.lockstep import Lockstep
from agentrl.rollout.runners import runner_for
from agentrl.rollout.worker import Worker
from support import WAKE, AsyncEchoEnv, BadEnv, EchoEnv
from support.envs import Fault
from support.fault_log import FaultLog
from support.faulty import BadEngine, BadReward, EngineFault, OnceBadEnv
from support.play import collect, engine_agent, right, table, worker, wrong

TASK = EchoEnv().tasks("train")[10]
DEADLINE_S = 1.0
SOLVES = {-1: right(TASK)}

ENV_FAULTS: list[tuple[Fault, str]] = [
    ("raise", "reset"),
    ("raise", "step"),
    ("garbage", "reset"),
    ("garbage", "step"),
    ("hang", "reset"),
    ("hang", "step"),
    ("exit", "reset"),
    ("exit", "step"),
    ("killed", "step"),
    ("memory", "step"),
]
SAYS: Mapping[Fault, str] = {
    "raise": "raised ValueError: the dog ate the world",
    "garbage": "got int 42",
    "hang": f"did not answer within {DEADLINE_S:g} s",
    "exit": "its process exited with 3 during",
    "killed": "its process was killed by signal 9 during step",
    "memory": "step raised MemoryError",
}
DOES: Mapping[str, str] = {
    "raise": "raises",
    "garbage": "returns garbage",
    "hang": "hangs",
    "exit": "exits the process",
    "killed": "is killed by SIGKILL, as the OOM killer does",
    "memory": "asks for more memory than RLIMIT_AS allows",
    "crash": "loses its connection",
    "nan": "answers NaN logprobs",
    "empty": "answers no token",
    "short": "answers fewer logprobs than tokens",
    "versions": "answers versions of another length",
}
SURVIVABLE: Mapping[RunsIn, tuple[Fault, ...]] = {
    "inline": ("raise", "garbage"),  # a sync call cannot be cut inline: test_runners.py
    "thread": ("raise", "garbage", "hang"),
    "process": ("raise", "garbage", "hang", "exit", "killed", "memory"),
}
QUICK = {("process", "hang", "step"), ("process", "exit", "step")}  # each process costs a second

MATRIX = [
    pytest.param(
        runs_in,
        fault,
        at,
        marks=[pytest.mark.slow]
        if runs_in == "process" and (runs_in, fault, at) not in QUICK
        else [],
        id=f"{runs_in}-{fault}-{at}",
    )
    for runs_in, faults in SURVIVABLE.items()
    for fault, at in ENV_FAULTS
    if fault in faults
]


@pytest.fixture(autouse=True)
def nothing_stays_behind() -> Iterator[None]:
    """No test may leave a thread of an env or a process behind."""
    yield
    WAKE.set()
    until = time.monotonic() + 5
    while env_threads() and time.monotonic() < until:
        time.sleep(0.005)
    WAKE.clear()
    assert env_threads() == []
    assert multiprocessing.active_children() == []


def env_threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("env ")]


def twice(by: Worker, *, group_size: int) -> tuple[Group, Group, int]:
    """Two groups, one after the other, and how many envs were open between them."""

    async def whole() -> tuple[Group, Group, int]:
        try:
            [first] = await by.collect(
                [TASK], agent=engine_agent(SOLVES), group_size=group_size, label="train"
            )
            left = by.pool.size
            [second] = await by.collect(
                [TASK], agent=engine_agent(SOLVES), group_size=group_size, label="train", step=1
            )
            return first, second, left
        finally:
            await by.close()

    return asyncio.run(whole())


@pytest.mark.parametrize(("runs_in", "fault", "at"), MATRIX)
def test_an_env_that_breaks_costs_one_episode_and_is_not_lent_again(
    runs_in: RunsIn, fault: Fault, at: str, tmp_path: Path, fault_log: FaultLog
) -> None:
    env = OnceBadEnv(fault=fault, at=at, claim=str(tmp_path / "claim"))
    size = 2 if runs_in == "process" else 3
    by = worker(env, runner=runner_for(env, runs_in), at=table(env_timeout_s=DEADLINE_S))
    first, second, left = twice(by, group_size=size)
    [broken] = [t for t in first.trajectories if t.failure is not None]
    assert broken.stop is (Stop.TIMEOUT if fault == "hang" else Stop.ERROR)
    assert broken.failure is not None
    assert broken.failure.where == "env"
    assert SAYS[fault] in broken.failure.error
    assert (broken.score, broken.success) == (None, None)
    assert broken.seconds < 2 * DEADLINE_S
    rest = [t for t in first.trajectories if t is not broken]
    assert [(t.stop, t.success, t.is_scored) for t in rest] == [(Stop.DONE, True, True)] * (
        size - 1
    )
    assert [t.success for t in second.trajectories] == [True] * size
    assert left == (size - 1 if runs_in != "inline" else 1), "the broken env is gone"
    fault_log.groups(
        "env",
        f"{at} {DOES[fault]}",
        runs_in,
        deadline_s=DEADLINE_S,
        groups=[first, second],
        failed=1,
    )


@pytest.mark.parametrize("runs_in", ["thread", pytest.param("process", marks=pytest.mark.slow)])
def test_a_slow_env_within_its_deadline_is_no_fault(
    runs_in: RunsIn, tmp_path: Path, fault_log: FaultLog
) -> None:
    env = OnceBadEnv(fault="slow", claim=str(tmp_path / "claim"))
    by = worker(env, runner=runner_for(env, runs_in), at=table(env_timeout_s=DEADLINE_S))
    groups = collect(by, SOLVES, [TASK])
    what = "step takes a fifth of its deadline"
    fault_log.groups("env", what, runs_in, deadline_s=DEADLINE_S, groups=groups)


def test_a_coroutine_that_hangs_inline_is_cut(fault_log: FaultLog) -> None:
    sleeper = EchoEnv().tasks("train")[10]
    stuck = type(sleeper)(id="stuck", seed=0, answer="sleep", data=sleeper.data)
    by = worker(AsyncEchoEnv(), at=table(env_timeout_s=DEADLINE_S))
    began = time.monotonic()
    groups = collect(by, SOLVES, [stuck, sleeper])
    assert time.monotonic() - began < 2 * DEADLINE_S
    assert [[t.stop for t in g.trajectories] for g in groups] == [
        [Stop.TIMEOUT] * 2,
        [Stop.DONE] * 2,
    ]
    assert {t.failure.where for t in groups[0].trajectories if t.failure} == {"env"}
    what = "reset hangs in a coroutine, twice"
    fault_log.groups("env", what, "inline", deadline_s=DEADLINE_S, groups=groups, failed=2)


@pytest.mark.parametrize(
    "runs_in", ["inline", "thread", pytest.param("process", marks=pytest.mark.slow)]
)
def test_a_reward_of_nan_is_counted_and_its_sibling_is_scored(
    runs_in: RunsIn, tmp_path: Path, fault_log: FaultLog
) -> None:
    env = OnceBadEnv(fault="nan", claim=str(tmp_path / "claim"))
    [group] = collect(worker(env, runner=runner_for(env, runs_in)), SOLVES, [TASK])
    assert [t.stop for t in group.trajectories] == [Stop.DONE] * 2
    assert [t.failure for t in group.trajectories] == [None] * 2
    assert sorted(t.is_scored for t in group.trajectories) == [False, True]
    assert sum(math.isnan(t.env_return) for t in group.trajectories) == 1
    what = "step rewards NaN"
    fault_log.groups("env", what, runs_in, deadline_s=DEADLINE_S, groups=[group], unscored=1)


@pytest.mark.parametrize(
    "runs_in", ["inline", "thread", pytest.param("process", marks=pytest.mark.slow)]
)
def test_an_episode_that_never_ends_is_cut_by_max_turns(runs_in: RunsIn) -> None:
    env = BadEnv(fault="endless")
    by = worker(env, runner=runner_for(env, runs_in), at=table(max_turns=5))
    [group] = collect(by, {-1: right(TASK) * 3}, [TASK])
    assert [(t.stop, len(t.turns), t.success) for t in group.trajectories] == [
        (Stop.MAX_TURNS, 5, False)
    ] * 2


@pytest.mark.parametrize("runs_in", ["thread", "process"])
def test_a_hang_under_lockstep_holds_the_others_up_no_longer_than_its_deadline(
    runs_in: RunsIn, tmp_path: Path
) -> None:
    env = OnceBadEnv(fault="hang", claim=str(tmp_path / "claim"))
    by = worker(env, runner=runner_for(env, runs_in), at=table(env_timeout_s=DEADLINE_S))
    agent = engine_agent(SOLVES, lockstep=Lockstep())
    [group] = collect(by, agent, [TASK])
    assert sorted(t.stop for t in group.trajectories) == [Stop.DONE, Stop.TIMEOUT]
    assert max(t.seconds for t in group.trajectories) < 2 * DEADLINE_S


# --- engines --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("raise", "out of memory"),
        ("crash", "BadEngine: ConnectionResetError: the server went away"),
        ("hang", "the engine did not answer within 1 s (rollout.engine_timeout_s)"),
        ("nan", "the engine answered logprobs that are not finite"),
        ("empty", "the engine answered without a single token"),
        ("short", "tokens but"),
        ("versions", "do not sum to its"),
        ("garbage", "expected a Completion from the engine, got 'ant'"),
    ],
)
@pytest.mark.parametrize("at", [0, 1])
def test_an_engine_that_breaks_costs_one_episode_and_its_env_is_lent_again(
    fault: EngineFault, says: str, at: int, fault_log: FaultLog
) -> None:
    engine = BadEngine(script=SOLVES, fault=fault, at=at)

    async def whole() -> tuple[Group, int]:
        by = worker(EchoEnv())
        [group] = await by.collect(
            [TASK], agent=engine_agent(engine, timeout_s=DEADLINE_S), group_size=3, label="train"
        )
        left = by.pool.size
        await by.close()
        return group, left

    began = time.monotonic()
    group, left = asyncio.run(whole())
    assert time.monotonic() - began < 2 * DEADLINE_S
    good, broken, other = group.trajectories
    assert [good.success, other.success] == [True, True]
    assert [good.is_scored, other.is_scored] == [True, True]
    assert broken.stop is (Stop.TIMEOUT if fault == "hang" else Stop.ERROR)
    assert broken.failure is not None
    assert broken.failure.where == "engine"
    assert says in broken.failure.error
    assert len(broken.turns) == at
    assert sorted(engine.ended) == [0, 1, 2], "the engine is told of every end"
    assert left == (2 if fault == "hang" else 1), "envs go back to the pool"
    call = ("first", "second")[at]
    fault_log.groups(
        "engine",
        DOES[fault],
        f"{call} call of an episode",
        deadline_s=DEADLINE_S,
        groups=[group],
        failed=1,
    )


def test_an_engine_that_fails_at_the_end_of_an_episode_is_logged_and_costs_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    agent = engine_agent(BadEngine(script=SOLVES, fault="late_end"))
    with caplog.at_level(logging.WARNING):
        [group] = collect(worker(EchoEnv()), agent, [TASK], group_size=3)
    assert [t.success for t in group.trajectories] == [True] * 3
    assert "engine BadEngine: end(1): ConnectionResetError: the server went away" in caplog.text


def test_an_engine_that_hangs_under_lockstep_lets_the_siblings_finish() -> None:
    engine = BadEngine(script=SOLVES, fault="hang")
    agent = engine_agent(engine, timeout_s=0.5, lockstep=Lockstep())
    [group] = collect(worker(EchoEnv()), agent, [TASK], group_size=3)
    assert [t.stop for t in group.trajectories] == [Stop.DONE, Stop.TIMEOUT, Stop.DONE]


def test_the_episode_s_deadline_cuts_a_slow_engine_too() -> None:
    engine = BadEngine(script=SOLVES, fault="hang")
    by = worker(EchoEnv(), at=table(deadline_s=0.3))
    [group] = collect(by, engine_agent(engine, timeout_s=60), [TASK], group_size=3)
    assert [t.stop for t in group.trajectories] == [Stop.DONE, Stop.TIMEOUT, Stop.DONE]
    failure = group.trajectories[1].failure
    assert failure is not None
    assert failure.where == "engine"
    assert "passed its deadline of 0.3 s" in failure.error


# --- rewards --------------------------------------------------------------------------------------

REWARD_S = 0.5


@pytest.mark.parametrize(
    ("answer", "what", "says"),
    [
        (ValueError("no verdict"), "raises", "ValueError: no verdict"),
        ("hang", "hangs", "the reward did not answer within 0.5 s"),
        ([1.0], "answers a list", "expected a Score, a number or None"),
        (10**400, "answers a number too large for a float", "too large"),
        (math.nan, "answers NaN", None),
        (None, "answers None", None),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_reward_that_breaks_costs_one_score(
    answer: object, what: str, says: str | None, fault_log: FaultLog
) -> None:
    solved, lost = right(TASK), wrong(TASK)
    by = worker(EchoEnv(), reward=BadReward(answer=answer), reward_timeout_s=REWARD_S)
    began = time.monotonic()
    [group] = collect(by, {0: solved, 1: lost, 2: solved}, [TASK], group_size=3)
    seconds = time.monotonic() - began
    assert [t.is_scored for t in group.trajectories] == [True, False, True]
    failure = group.trajectories[1].failure
    if says is None:
        assert failure is None
    else:
        assert failure is not None
        assert (failure.where, says in failure.error) == ("reward", True)
    fault_log.groups(
        "reward",
        what,
        "one episode",
        deadline_s=REWARD_S,
        groups=[group],
        failed=int(says is not None),
        unscored=int(says is None),
        noticed_s=seconds,
    )
