"""Episodes in flight: envs are lent, seeds decide everything, a strategy spends the episodes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest

from agentrl.core.errors import ConfigError, TrainingError
from agentrl.core.protocols import Completion, Env, Play
from agentrl.core.types import Group, Start, Stop, Task
from agentrl.engines.generate import Generate
from agentrl.engines.policy import LoadedPolicy
from agentrl.rollout.agents import EngineAgent
from agentrl.rollout.lockstep import Lockstep
from agentrl.rollout.worker import SIBLINGS, Worker
from agentrl.text.renderer import Plain
from support import WORDS, BadEnv, EchoEnv
from support.faulty import DiceEngine, Judge, SlowEnv
from support.models import tiny_policy
from support.play import (
    InCell,
    KeepSolved,
    collect,
    engine_agent,
    right,
    table,
    worker,
    wrong,
)

TASKS = EchoEnv(length=3).tasks("train")[:4]


def scripts(tasks: Sequence[Task], solved: Sequence[int]) -> dict[int, list[Completion]]:
    """Replies by episode number: the siblings `solved` get everything right."""
    return {
        g * SIBLINGS + i: right(task) if i in solved else wrong(task)
        for g, task in enumerate(tasks)
        for i in range(8)
    }


def said(groups: Sequence[Group]) -> list[list[list[tuple[int, ...]]]]:
    return [[[turn.action_ids for turn in t.turns] for t in g.trajectories] for g in groups]


def as_data(groups: Sequence[Group]) -> list[Group]:
    """The groups without their wall-clock times."""
    return [
        replace(
            group,
            trajectories=tuple(replace(t, seconds=0, env_seconds=0) for t in group.trajectories),
        )
        for group in groups
    ]


# --- flat -----------------------------------------------------------------------------------------


def test_every_task_gets_a_scored_group_in_order() -> None:
    groups = collect(worker(EchoEnv(length=3)), scripts(TASKS, [0, 2]), TASKS, group_size=3)
    assert [group.task for group in groups] == TASKS
    for group in groups:
        assert [t.success for t in group.trajectories] == [True, False, True]
        assert [t.score and t.score.value for t in group.trajectories] == [1.0, 0.0, 1.0]


def test_beside_each_group_a_greedy_episode_is_played_where_one_is_needed() -> None:
    replies = scripts(TASKS, [3])  # the number after those of three siblings
    by = worker(EchoEnv(length=3))
    groups = collect(by, replies, TASKS, group_size=3, greedy=True)
    for group in groups:
        assert [t.success for t in group.trajectories] == [False] * 3
        assert group.greedy is not None
        assert group.greedy.score is not None
        assert (group.greedy.success, group.greedy.score.value) == (True, 1.0)
    plain = collect(worker(EchoEnv(length=3)), scripts(TASKS, [3]), TASKS, group_size=3)
    assert [group.greedy for group in plain] == [None] * 4
    assert said(groups) == said(plain)


def test_a_judge_scores_each_group_by_itself() -> None:
    by = worker(EchoEnv(length=3), reward=Judge())
    groups = collect(by, scripts(TASKS, [1]), TASKS[:2], group_size=3)
    assert [[t.score and t.score.value for t in g.trajectories] for g in groups] == [[0, 2, 0]] * 2


@pytest.mark.parametrize("in_flight", [1, 2, 5])
def test_no_more_episodes_are_in_flight_than_asked_for(in_flight: int) -> None:
    async def whole() -> tuple[int, list[Group]]:
        by = worker(EchoEnv(length=3), in_flight=in_flight)
        agent = engine_agent(DiceEngine())
        groups = await by.collect(TASKS, agent=agent, group_size=3, label="train")
        opened = by.pool.size
        await by.close()
        return opened, groups

    opened, groups = asyncio.run(whole())
    assert opened == in_flight, "each env that was ever opened is still there, and lent again"
    assert [t.stop for g in groups for t in g.trajectories] == [Stop.DONE] * 12


def test_a_limit_of_zero_plays_all_of_a_step_at_once() -> None:
    engine = DiceEngine()
    by = worker(EchoEnv(length=3))
    collect(by, engine_agent(engine), TASKS, group_size=3)
    assert len(engine.batches[0]) == 12
    assert by.pool.size == 0, "closed with the worker"


# --- seeds ----------------------------------------------------------------------------------------


def dice(
    env: Env, *, seed: int = 0, step: int = 0, in_flight: int = 0
) -> tuple[list[Group], list[list[int]]]:
    engine = DiceEngine(words=(*WORDS, "something else"))
    by = worker(env, seed=seed, in_flight=in_flight)
    agent = engine_agent(engine, lockstep=Lockstep())
    return collect(by, agent, TASKS, group_size=3, step=step), engine.batches


def test_the_same_seed_gives_the_same_tokens_and_another_others() -> None:
    first, _ = dice(EchoEnv(length=3), seed=1)
    assert as_data(dice(EchoEnv(length=3), seed=1)[0]) == as_data(first)
    assert said(dice(EchoEnv(length=3), seed=2)[0]) != said(first)
    assert said(dice(EchoEnv(length=3), seed=1, step=1)[0]) != said(first)
    assert len({str(t) for group in said(first) for t in group}) > 6, "siblings differ"


@pytest.mark.parametrize("in_flight", [0, 5])
def test_under_lockstep_slow_threads_sample_in_the_same_batches_as_inline(in_flight: int) -> None:
    groups, batches = dice(EchoEnv(length=3), in_flight=in_flight)
    for _ in range(3):
        slow, slow_batches = dice(SlowEnv(length=3, most_s=0.01), in_flight=in_flight)
        assert slow_batches == batches
        assert as_data(slow) == as_data(groups)


def sampled(policy: LoadedPolicy, env: Env) -> list[Group]:
    """Episodes of a real model."""
    renderer = Plain(policy.tokenizer)
    at = replace(table(max_tokens=4), renderer=renderer)
    engine = Generate()
    agent = EngineAgent(
        engine=engine, renderer=renderer, temperature=1.0, timeout_s=30, lockstep=Lockstep()
    )

    async def whole() -> list[Group]:
        by = worker(env, at=at, in_flight=5)
        await engine.start(policy)
        try:
            return await by.collect(TASKS[:2], agent=agent, group_size=4, label="train")
        finally:
            await by.close()
            await engine.close()

    return asyncio.run(whole())


def test_a_real_engine_gives_the_same_bits_whatever_the_envs_timing() -> None:
    policy = tiny_policy()
    inline = as_data(sampled(policy, EchoEnv(length=3, cap=4)))
    assert inline == as_data(sampled(policy, EchoEnv(length=3, cap=4)))
    assert inline == as_data(sampled(policy, SlowEnv(length=3, cap=4, most_s=0.01)))
    assert len({t.turns[0].action_ids for g in inline for t in g.trajectories}) > 1


# --- seams ----------------------------------------------------------------------------------------


def test_a_strategy_may_play_more_than_it_keeps() -> None:
    by = worker(EchoEnv(length=3), strategy=KeepSolved(extra=4))
    [group] = collect(by, scripts(TASKS[:1], [3, 5]), TASKS[:1], group_size=2)
    assert [t.success for t in group.trajectories] == [True, True]
    assert [t.score and t.score.value for t in group.trajectories] == [1.0, 1.0]


def test_a_start_sampler_decides_where_a_group_begins_and_all_siblings_begin_there() -> None:
    by = worker(EchoEnv(length=3))
    by.starts = InCell(actions=("ant",))
    replies = {-1: right(TASKS[0])[1:]}
    groups = collect(by, replies, [TASKS[0]], group_size=2)
    assert groups[0].start == Start(cell="ant", actions=("ant",))
    assert [t.start for t in groups[0].trajectories] == [groups[0].start] * 2
    assert [len(t.turns) for t in groups[0].trajectories] == [2, 2]


@dataclass(frozen=True)
class Raising:
    """A strategy that breaks while its episodes play."""

    error: Exception

    by_group: ClassVar[bool] = False

    async def collect(self, tasks: Sequence[Task], play: Play) -> list[Group]:
        async with asyncio.TaskGroup() as outer:
            outer.create_task(self._inner(tasks[0], play))
        return []

    async def _inner(self, task: Task, play: Play) -> None:
        async with asyncio.TaskGroup() as inner:
            inner.create_task(play(task, Start(), group=0, sibling=0))
            inner.create_task(self._break())

    async def _break(self) -> None:
        raise self.error


def test_an_error_of_ours_comes_out_of_task_groups_as_itself() -> None:
    by = worker(EchoEnv(length=3), strategy=Raising(TrainingError("no good")))
    with pytest.raises(TrainingError, match="no good"):
        collect(by, scripts(TASKS, [0]), TASKS)
    assert by.pool.size == 0


def test_a_bug_in_a_strategy_keeps_its_own_name() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        collect(worker(EchoEnv(), strategy=Raising(ZeroDivisionError("a bug"))), {}, TASKS)
    assert caught.group_contains(ZeroDivisionError, match="a bug")


def test_a_group_larger_than_episode_numbers_allow_is_refused() -> None:
    with pytest.raises(ConfigError, match="fewer than 1000 episodes of a task, got 1000"):
        collect(worker(EchoEnv()), {}, TASKS, group_size=SIBLINGS)


def test_a_worker_collects_again_with_the_envs_that_it_has() -> None:
    async def whole(by: Worker) -> list[int]:
        sizes = []
        for step in range(3):
            agent = engine_agent(DiceEngine())
            await by.collect(TASKS, agent=agent, group_size=2, label="train", step=step)
            sizes.append(by.pool.size)
        await by.close()
        return sizes

    assert asyncio.run(whole(worker(EchoEnv(length=3)))) == [8, 8, 8]


def test_an_env_that_cannot_be_opened_is_a_failure_of_the_episode() -> None:
    @dataclass(kw_only=True)
    class Unbuildable(BadEnv):
        is_template: bool = True

        def __post_init__(self) -> None:
            super().__post_init__()
            if not self.is_template:
                raise ValueError("no display")
            self.is_template = False

    [group] = collect(worker(Unbuildable()), {-1: right(TASKS[0])}, TASKS[:1])
    for trajectory in group.trajectories:
        assert (trajectory.stop, trajectory.turns) == (Stop.ERROR, ())
        assert trajectory.failure is not None
        assert trajectory.failure.where == "env"
        assert "no display" in trajectory.failure.error
