"""The plain strategy: every task gets one group of independent episodes from the same start."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from agentrl.core.protocols import Play
from agentrl.core.registry import register
from agentrl.core.types import Group, Task
from agentrl.rollout.collecting import each_task


@register("strategy", "flat")
@dataclass(frozen=True, kw_only=True)
class Flat:
    """`group_size` independent episodes of each task, all in flight together."""

    by_group: ClassVar[bool] = True

    async def collect(self, tasks: Sequence[Task], play: Play, *, first: int = 0) -> list[Group]:
        """One scored group per task, in the order of the tasks; `first` numbers the first one."""
        return await each_task(
            tasks, lambda task, index: self._group(task, index, play), first=first
        )

    async def _group(self, task: Task, index: int, play: Play) -> Group:
        start = play.start(task)
        async with asyncio.TaskGroup() as running:
            siblings = [
                running.create_task(play(task, start, group=index, sibling=sibling))
                for sibling in range(play.group_size)
            ]
            greedy = running.create_task(play.greedy(task, start, group=index))
        trajectories = tuple(sibling.result() for sibling in siblings)
        group = Group(task=task, start=start, trajectories=trajectories, greedy=greedy.result())
        return await play.score(group)
