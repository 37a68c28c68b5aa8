"""Branches off whole episodes, by snapshots of the env."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Annotated, ClassVar

from annotated_types import Ge

from agentrl.core.protocols import Play
from agentrl.core.registry import register
from agentrl.core.saved import Saved
from agentrl.core.seeds import derive_seed
from agentrl.core.types import Fork, Group, Start, Task, Trajectory
from agentrl.rollout.collecting import each_task, roots_of
from agentrl.rollout.strategies.flat import Flat


@register("strategy", "snapshot_tree")
@dataclass(frozen=True, kw_only=True)
class SnapshotTree:
    """`roots` episodes of each task; the other places of the group are branches, each before a turn
    of a root that is drawn evenly among all of them (another one each time, while there are). The
    env is saved before each turn of a root and restored for a branch.

    Nothing is stepped twice, and what chance decided before the branch stands: unlike replay, this
    branches envs that are not deterministic. Where no root has a second turn the group is filled
    with roots. Evaluations are `flat`.
    """

    by_group: ClassVar[bool] = False
    branches: ClassVar[bool] = True
    abilities: ClassVar[frozenset[str]] = frozenset({"snapshot", "restore"})
    """What the env has to have."""

    roots: Annotated[int, Ge(1)] | None = None
    """Episodes from the start; `none` is half the group."""

    async def collect(self, tasks: Sequence[Task], play: Play) -> list[Group]:
        """One scored group per task, in the order of the tasks; roots stand first.

        Raises:
            ConfigError: there are more roots than a group has places.
        """
        if not play.more(1):
            return await Flat().collect(tasks, play)
        roots = roots_of(self.roots, play)
        return await each_task(tasks, lambda task, index: self._group(task, index, play, roots))

    async def _group(self, task: Task, index: int, play: Play, roots: int) -> Group:
        start = play.start(task)
        stages: list[dict[int, Saved]] = [{} for _ in range(roots)]
        first = await self._play(task, start, index, play, [(None, own) for own in stages], 0)
        forks = drawn(first, play.group_size - roots)
        ways: list[tuple[tuple[Trajectory, Fork] | None, dict[int, Saved] | None]] = [
            ((first[fork.trajectory], fork), stages[fork.trajectory]) for fork in forks
        ]
        ways += [(None, None)] * (play.group_size - roots - len(forks))
        leaves = (*first, *await self._play(task, start, index, play, ways, roots))
        return await play.score(Group(task=task, start=start, trajectories=leaves))

    async def _play(
        self,
        task: Task,
        start: Start,
        index: int,
        play: Play,
        ways: Sequence[tuple[tuple[Trajectory, Fork] | None, dict[int, Saved] | None]],
        first: int,
    ) -> list[Trajectory]:
        async with asyncio.TaskGroup() as running:
            played = [
                running.create_task(
                    play(task, start, group=index, sibling=place, fork=fork, stages=stages)
                )
                for place, (fork, stages) in enumerate(ways, start=first)
            ]
        return [one.result() for one in played]


def drawn(roots: Sequence[Trajectory], count: int) -> list[Fork]:
    """Where `count` branches leave the roots; none where no root has a second turn. What failed is
    not branched, and the draw depends on what was sampled, so that it is repeated."""
    whole = [(i, root) for i, root in enumerate(roots) if not root.stop.is_failure]
    places = [Fork(i, turn) for i, root in whole for turn in range(1, len(root.turns))]
    if not places:
        return []
    said = [token for _, root in whole for turn in root.turns for token in turn.action_ids]
    rng = Random(derive_seed(roots[0].task.id, "branches", *said))
    found: list[Fork] = []
    while len(found) < count:
        found += rng.sample(places, min(len(places), count - len(found)))
    return found
