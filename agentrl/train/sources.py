"""Where a step's groups come from: sampled for it, sampled ahead of it, or recorded before.

One class for each `rollout.mode`, and one for `rollout.replay`. All ranks call the same verbs.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Protocol

from agentrl.algo.entropy import tempered
from agentrl.core.config import Config
from agentrl.core.errors import ConfigError, DataError, TrainingError
from agentrl.core.protocols import Share
from agentrl.core.seeds import derive_seed
from agentrl.core.types import Group, Sum, Task
from agentrl.evaluate.runner import Stage
from agentrl.rollout.agents import EngineAgent
from agentrl.rollout.ahead import Ahead, oldest_version
from agentrl.rollout.background import Loop
from agentrl.rollout.gate import Gate
from agentrl.rollout.record import read_groups, write_groups
from agentrl.rollout.share import all_groups, own_tasks
from agentrl.rollout.staleness import Ledger
from agentrl.train.checkpoint import write_whole

BOOKS = "rollouts"
"""Folder of a checkpoint: the books of each rank, and its groups that wait to be trained on."""

Following = Callable[[int], list[Task]]


class Source(Protocol):
    """Gives the trainer its groups."""

    def groups(self, step: int) -> list[Group]:
        """The scored groups that step `step` (from 0) trains on; those of other ranks are slim."""
        ...

    def advance(self, version: int) -> None:
        """The engine has the weights of this version."""

    def metrics(self) -> dict[str, Sum]:
        """What there is to tell of the last step's groups."""
        ...

    def save(self, folder: Path) -> None:
        """What a resumed run needs, into a checkpoint."""

    def restore(self, folder: Path, version: int) -> None:
        """Go on from what `save` wrote.

        Raises:
            ConfigError: it was written by another number of processes.
            DataError: it is not whole.
        """

    def close(self) -> None:
        """Give up what is in flight; may be called twice."""


def build_source(
    config: Config,
    stage: Stage,
    agent: EngineAgent,
    loop: Loop,
    tasks: Callable[[int, int], list[Task]],
) -> Source:
    """The source that the config asks for; `tasks(step, seed)` are the curriculum's."""
    if config.rollout.replay is not None:
        return Recorded(folder=config.rollout.replay, share=config.parallel)
    if config.rollout.mode == "sync":
        return InStep(config=config, stage=stage, agent=agent, loop=loop, tasks=tasks)
    return InFlight(
        config=config,
        stage=stage,
        loop=loop,
        following=lambda step: tasks(step, config.run.seed),
    )


@dataclass(kw_only=True)
class InStep:
    """Samples each step's groups when the step begins."""

    config: Config
    stage: Stage
    agent: EngineAgent
    loop: Loop
    tasks: Callable[[int, int], list[Task]]

    def groups(self, step: int) -> list[Group]:
        """Of the step's tasks, in their order."""
        seed = self.config.run.seed
        temperature = tempered(self.config.entropy, self.config.sampling.temperature)
        return self.loop.run(
            self.stage.worker.collect(
                self.tasks(step, seed),
                agent=replace(self.agent, temperature=temperature),
                group_size=self.config.rollout.group_size,
                label="train",
                step=step,
                more=lambda batch: self.tasks(step, derive_seed(seed, "more", batch)),
                greedy="greedy" in self.config.advantage.needs,
            )
        )

    def advance(self, version: int) -> None:
        """The next step samples from what the engine has then."""

    def metrics(self) -> dict[str, Sum]:
        """Nothing: the weights that sampled are those that are trained."""
        return {}

    def save(self, folder: Path) -> None:
        """Nothing is in flight between steps."""

    def restore(self, folder: Path, version: int) -> None:
        """Nothing was in flight."""

    def close(self) -> None:
        """Nothing is in flight between steps."""


@dataclass(kw_only=True)
class InFlight:
    """Samples ahead of the trainer, within `rollout.max_staleness`."""

    config: Config
    stage: Stage
    loop: Loop
    following: Following
    """The tasks of a step of all ranks."""
    ahead: Ahead = field(init=False)
    _last: dict[str, Sum] = field(default_factory=dict, init=False)
    _is_begun: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        settings, share = self.config.rollout, self.config.parallel
        if settings.tasks_per_step % share.world:
            raise ConfigError(
                f"rollout.tasks_per_step: {settings.tasks_per_step} groups cannot be shared evenly "
                f"by {share.world} processes, as rollout.mode={settings.mode} needs; choose a "
                f"multiple of {share.world}"
            )
        own = settings.tasks_per_step // share.world
        following = lru_cache(maxsize=64)(self.following)
        gate = Gate() if settings.mode == "partial" else None
        self.ahead = Ahead(
            ledger=Ledger(
                per_step=own,
                max_staleness=settings.max_staleness,
                late=settings.late,
                total=own * self.config.run.steps,
            ),
            play=self.stage.worker.one_by_one(
                agent=self.stage.engine_agent(in_step=False),
                group_size=settings.group_size,
                label="train",
                gate=gate,
                greedy="greedy" in self.config.advantage.needs,
            ),
            task_of=lambda number: own_tasks(share, following(number // own))[number % own],
            gate=gate,
        )

    def groups(self, step: int) -> list[Group]:
        """The first that are complete; late ones are waited for, or dropped."""
        if not self._is_begun:
            self._is_begun = True
            self.loop.run(self._begin())
        before = self.ahead.ledger.dropped
        own = self.loop.run(self.ahead.take())
        ages = [step - oldest_version(group, step) for group in own]
        stalest, bound = max(ages, default=0), self.config.rollout.max_staleness
        if stalest > bound:
            raise TrainingError(
                f"step {step + 1}: a group is {stalest} versions old, and rollout.max_staleness is "
                f"{bound}: the engine reports older weights than it was given"
            )
        books = self.ahead.ledger
        self._last = {
            "rollout/staleness": Sum(float(sum(ages)), float(len(ages))),
            "rollout/staleness_max": Sum(float(stalest)),
            "rollout/in_flight": Sum(float(len(books.out))),
            "rollout/waiting": Sum(float(len(books.back))),
            "groups/late": Sum(float(books.dropped - before)),
        }
        return all_groups(self.config.parallel, own)

    async def _begin(self) -> None:
        self.ahead.begin()

    def advance(self, version: int) -> None:
        """Begin what the new version allows."""
        self.loop.run(self.ahead.advance(version))

    def metrics(self) -> dict[str, Sum]:
        """How old the step's groups were, and how many are on their way."""
        return self._last

    def save(self, folder: Path) -> None:
        """The books, and the groups that are complete; those in flight begin anew after a resume.

        The books are read in the loop that keeps them.
        """
        state, groups = self.loop.run(self._kept())
        share = self.config.parallel
        kept = folder / BOOKS
        kept.mkdir(exist_ok=True)
        books = json.dumps({"world": share.world, **state}) + "\n"
        write_whole(kept / f"books.{share.rank}.json", books)
        write_groups(kept / f"groups.{share.rank}.json.gz", groups)

    async def _kept(self) -> tuple[dict[str, object], list[Group]]:
        ahead = self.ahead
        return dict(ahead.state()), [ahead.complete[number] for number in ahead.ledger.back]

    def restore(self, folder: Path, version: int) -> None:
        """Go on from what `save` wrote."""
        share = self.config.parallel
        path = folder / BOOKS / f"books.{share.rank}.json"
        try:
            state = json.loads(path.read_text())
            world = state.pop("world")
        except (OSError, ValueError, KeyError) as error:
            raise DataError(
                f"{path}: expected the books of rollouts in flight ({error})"
            ) from error
        if world != share.world:
            raise ConfigError(
                f"--resume: {folder} keeps rollouts of {world} processes, and this run has "
                f"{share.world}: go on with {world}, or start from its weights (model={folder})"
            )
        groups = read_groups(folder / BOOKS / f"groups.{share.rank}.json.gz")
        self.ahead.restore(state, version, groups)

    def close(self) -> None:
        """Give up what is in flight."""
        self.loop.run(self.ahead.close())


@dataclass(kw_only=True)
class Recorded:
    """The groups of a run that recorded its schedule (`rollout.record`)."""

    folder: Path
    share: Share

    def __post_init__(self) -> None:
        if not schedule_file(self.folder, 0, self.share.rank).exists():
            raise ConfigError(
                f"rollout.replay: {self.folder} holds no schedule of "
                f"{self.share.world} process(es); expected the folder schedule/ of a run with "
                "rollout.record=true"
            )

    def groups(self, step: int) -> list[Group]:
        """As they were, in their order."""
        path = schedule_file(self.folder, step, self.share.rank)
        if not path.exists():
            raise DataError(f"{path} is missing: the recorded run had no step {step + 1}")
        return all_groups(self.share, read_groups(path))

    def advance(self, version: int) -> None:
        """What was sampled is sampled."""

    def metrics(self) -> dict[str, Sum]:
        """Nothing was measured."""
        return {}

    def save(self, folder: Path) -> None:
        """The schedule is on disk."""

    def restore(self, folder: Path, version: int) -> None:
        """The step says where to go on."""

    def close(self) -> None:
        """Nothing is in flight."""


def schedule_file(folder: Path, step: int, rank: int) -> Path:
    """Where the groups that one rank trained on in step `step` (from 0) are recorded."""
    return folder / f"step-{step + 1:06d}.{rank}.json.gz"


def record_step(folder: Path, step: int, rank: int, groups: list[Group]) -> Callable[[], None]:
    """Writes the groups of this rank."""
    own = [group for group in groups if not group.is_remote]
    return partial(write_groups, schedule_file(folder, step, rank), own)
