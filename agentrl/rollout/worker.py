"""The worker keeps episodes in flight: it lends them envs and seats, and scores their groups."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from random import Random

from agentrl.core.errors import AgentRLError, ConfigError, DeadlineError, EnvError
from agentrl.core.protocols import (
    Agent,
    Env,
    Renderer,
    Reward,
    Runner,
    Share,
    StartSampler,
    Strategy,
)
from agentrl.core.saved import Saved
from agentrl.core.seeds import derive_seed
from agentrl.core.types import Failure, Fork, Group, Opening, Start, Stop, Task, Trajectory
from agentrl.rollout.agents import EngineAgent
from agentrl.rollout.ahead import PlayGroup
from agentrl.rollout.episode import Episode, Table
from agentrl.rollout.gate import Gate
from agentrl.rollout.group import score_group
from agentrl.rollout.runners import EnvPool
from agentrl.rollout.share import Solo, all_groups, own_tasks
from agentrl.rollout.watching import Watch, Watching

SIBLINGS = 1_000
"""Episode numbers: group * SIBLINGS + sibling, so that number order is group order."""
TRAIN = "train"
"""The label of what is trained on."""
AHEAD = 2**32
"""The first group that is played ahead of the trainer: evaluations, which are played beside it,
count from 0."""


@dataclass(kw_only=True)
class Worker:
    """Plays tasks with an agent, as a strategy says; owns the pool of open envs."""

    env: Env
    runner: Runner
    table: Table
    reward: Reward
    strategy: Strategy
    seed: int
    in_flight: int = 0
    """Most episodes at once; 0 for all."""
    reward_timeout_s: float = 120.0
    starts: StartSampler | None = None
    """Where the episodes of training begin; None for a reset."""
    watch: Watch | None = None
    """Goals that a bonus wants watched in episodes of training."""
    share: Share = field(default_factory=Solo)
    """This process among those that play the same tasks."""
    pool: EnvPool = field(init=False)

    def __post_init__(self) -> None:
        self.pool = EnvPool(self.runner, self.env)

    async def collect(
        self,
        tasks: Sequence[Task],
        *,
        agent: Agent,
        group_size: int,
        label: str,
        step: int = 0,
        share: Share | None = None,
        more: Callable[[int], Sequence[Task]] | None = None,
        greedy: bool = False,
        starts: StartSampler | None = None,
    ) -> list[Group]:
        """Scored groups of every task. `label` and `step` decide the seeds of the episodes, which
        begin where `starts` says; if that is None, those of training where the run's own does.

        Of several processes each plays its share, and the groups of the others come back slim
        (`Group.is_remote`). `share=Solo()` plays everything here. `more` gives the tasks of
        further batches to strategies that ask for them. `greedy` plays a greedy episode beside each
        group.

        Raises:
            ConfigError: the group is larger than episode numbers allow.
        """
        share = share or self.share
        play = self._playing(agent, group_size, derive_seed(self.seed, label, step), share)
        play.further, play.is_greedy = more, greedy
        play.watch = self.watch if label == TRAIN else None
        play.starts = starts or (self.starts if label == TRAIN else None)
        with _one_clear_error():
            groups = await self.strategy.collect(own_tasks(share, tasks), play)
        return all_groups(share, groups)

    def one_by_one(
        self,
        *,
        agent: Agent,
        group_size: int,
        label: str,
        gate: Gate | None = None,
        greedy: bool = False,
    ) -> PlayGroup:
        """Plays groups that are asked for one at a time, at any time; `label` and a group's number
        decide the seeds of its episodes, which wait at `gate` before each turn.

        Raises:
            ConfigError: the group is larger than episode numbers allow.
        """
        play = self._playing(agent, group_size, derive_seed(self.seed, label), self.share)
        play.gate, play.is_greedy = gate, greedy
        play.watch = self.watch if label == TRAIN else None
        play.starts = self.starts if label == TRAIN else None

        async def play_group(task: Task, number: int) -> Group:
            with _one_clear_error():
                (group,) = await self.strategy.collect([task], replace(play, first=AHEAD + number))
            return group

        return play_group

    def _playing(self, agent: Agent, group_size: int, seed: int, share: Share) -> _Playing:
        if group_size >= SIBLINGS:
            raise ConfigError(
                f"expected fewer than {SIBLINGS} episodes of a task, got {group_size}: lower "
                "rollout.group_size or eval.samples"
            )
        return _Playing(
            worker=self,
            share=share,
            agent=agent,
            group_size=group_size,
            seed=seed,
            slots=asyncio.Semaphore(self.in_flight or sys.maxsize),
        )

    async def close(self) -> None:
        """Close every env."""
        await self.pool.close()


@dataclass(kw_only=True)
class _Playing:
    """What a strategy is handed for one `collect` (`core.protocols.Play`)."""

    worker: Worker
    share: Share
    agent: Agent
    group_size: int
    seed: int
    slots: asyncio.Semaphore
    further: Callable[[int], Sequence[Task]] | None = None
    first: int = 0
    """Number of the strategy's first group."""
    gate: Gate | None = None
    starts: StartSampler | None = None
    """Where episodes begin; None for a reset."""
    is_greedy: bool = False
    """A greedy episode is played beside each group."""
    watch: Watch | None = None

    @property
    def renderer(self) -> Renderer:
        """The run's."""
        return self.worker.table.renderer

    def more(self, batch: int) -> Sequence[Task]:
        """This rank's share of the batch's tasks."""
        return own_tasks(self.share, self.further(batch)) if self.further is not None else ()

    def start(self, task: Task) -> Start:
        """A reset, unless the run owns a start sampler."""
        if self.starts is None:
            return Start()
        seed = derive_seed(self.seed, "start", self.first, task.id)
        return self.starts.sample(task, Random(seed))

    async def __call__(
        self,
        task: Task,
        start: Start,
        *,
        group: int,
        sibling: int,
        fork: tuple[Trajectory, Fork] | None = None,
        opening: Opening | None = None,
        stages: dict[int, Saved] | None = None,
    ) -> Trajectory:
        """One episode on a lent env; an env that broke is not lent again."""
        group += self.first
        group = group * self.share.world + self.share.rank  # as if one process played all
        number = group * SIBLINGS + sibling
        lockstep = self.agent.lockstep if isinstance(self.agent, EngineAgent) else None
        await self.slots.acquire()
        if lockstep is not None:
            lockstep.enter(number)
        try:
            await asyncio.sleep(0)  # let every sibling enter before the first one asks
            return await self._play(task, start, group, number, (fork, opening, stages))
        finally:
            self.slots.release()
            try:
                await asyncio.sleep(0)  # whoever takes the slot enters before the others go on
            finally:
                if lockstep is not None:
                    lockstep.leave(number)
            await self.agent.end(number)

    async def _play(
        self,
        task: Task,
        start: Start,
        group: int,
        number: int,
        way: tuple[tuple[Trajectory, Fork] | None, Opening | None, dict[int, Saved] | None],
    ) -> Trajectory:
        pool = self.worker.pool
        fork, opening, stages = way
        is_broken = True
        try:
            env = await pool.acquire()
        except (EnvError, DeadlineError) as error:
            stop = Stop.TIMEOUT if isinstance(error, DeadlineError) else Stop.ERROR
            failure = Failure(where="env", error=str(error))
            return Trajectory(task=task, start=start, turns=(), stop=stop, failure=failure)
        try:
            trajectory = await Episode(
                task=task,
                start=start,
                fork=fork,
                begins=opening,
                stages=stages,
                table=self.worker.table,
                agent=self.agent,
                runner=self.worker.runner,
                env=env,
                number=number,
                group=group,
                seed=derive_seed(self.seed, number),
                gate=self.gate,
                watching=None if self.watch is None else Watching(watch=self.watch),
            ).play()
            is_broken = trajectory.failure is not None and trajectory.failure.where == "env"
        finally:
            await pool.release(env, is_broken=is_broken)
        return trajectory

    async def greedy(self, task: Task, start: Start, *, group: int) -> Trajectory | None:
        """The episode that follows the group's last, sampled greedily."""
        if not self.is_greedy or not isinstance(self.agent, EngineAgent):
            return None
        play = replace(self, agent=replace(self.agent, greedy=True))
        return await play(task, start, group=group, sibling=self.group_size)

    async def score(self, group: Group) -> Group:
        """The group with its rewards."""
        return await score_group(group, self.worker.reward, timeout_s=self.worker.reward_timeout_s)


@contextmanager
def _one_clear_error() -> Iterator[None]:
    """One error of ours instead of one for each episode."""
    try:
        yield
    except BaseExceptionGroup as group:
        errors: BaseException | None = group.subgroup(AgentRLError)
        if errors is None:
            raise
        while isinstance(errors, BaseExceptionGroup):
            errors = errors.exceptions[0]
        raise errors from group
