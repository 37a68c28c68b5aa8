"""Episodes that go on from a point of another one, half of them told to answer at once (MRT)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random
from statistics import fmean
from typing import ClassVar

from agentrl.core.protocols import Play
from agentrl.core.registry import register
from agentrl.core.seeds import derive_seed
from agentrl.core.types import Group, Task, Trajectory
from agentrl.rollout.collecting import each_task
from agentrl.rollout.cuts import BEGINNING, Cut, cuts, onward, sampled_before
from agentrl.rollout.strategies.flat import Flat


@register("strategy", "mrt")
@dataclass(frozen=True, kw_only=True)
class Mrt:
    """One episode of each task is cut at a random place between its parts; of the others half go
    on from there, and half are made to answer there by `words` (MRT, Qu et al. 2025, arXiv
    2503.07572, its form for reinforcement learning; the prefix is the current policy's).

    The first episode counts as one that went on. What lies before the cut is not trained by
    `advantage=mrt`. Parts are turns, and what ends in `ends` inside a reply. Evaluations are
    `flat`.
    """

    by_group: ClassVar[bool] = False
    branches: ClassVar[bool] = True

    words: str = "\n</think>\n\n"
    """What makes a reply answer: the end of its reasoning, or the beginning of an answer."""
    ends: str = r"\n\n|(?=\bWait\b)"
    """Where a part of a reply ends, as a regular expression; empty for turns alone."""

    async def collect(self, tasks: Sequence[Task], play: Play) -> list[Group]:
        """One scored group per task, in the order of the tasks; those that answer stand last."""
        if not play.more(1):
            return await Flat().collect(tasks, play)
        return await each_task(tasks, lambda task, index: self._group(task, index, play))

    async def _group(self, task: Task, index: int, play: Play) -> Group:
        start = play.start(task)
        root = await play(task, start, group=index, sibling=0)
        cut = self._cut(root, play)
        stops = play.group_size // 2
        told = [False] * (play.group_size - stops - 1) + [True] * stops
        words = play.renderer.encode(self.words)
        ways = [onward(root, 0, cut, words if stop else (), 0 if stop else None) for stop in told]
        async with asyncio.TaskGroup() as running:
            others = [
                running.create_task(
                    play(task, start, group=index, sibling=place, fork=fork, opening=opening)
                )
                for place, (fork, opening) in enumerate(ways, start=1)
            ]
        trajectories = (root, *(other.result() for other in others))
        group = await play.score(Group(task=task, start=start, trajectories=trajectories))
        return replace(group, trajectories=marked(group.trajectories, cut))

    def _cut(self, root: Trajectory, play: Play) -> Cut:
        """The draw depends on what was sampled, so that it is repeated in a run that is."""
        places = [] if root.stop.is_failure else cuts(root, play.renderer, self.ends)
        said = [token for turn in root.turns for token in turn.action_ids]
        return Random(derive_seed(root.task.id, "cut", *said)).choice(places or [BEGINNING])


def marked(siblings: Sequence[Trajectory], cut: Cut) -> tuple[Trajectory, ...]:
    """Siblings that know where they were cut, and how likely an answer there was right."""
    answered = [float(bool(t.success)) for t in siblings if t.budget == 0 and t.is_scored]
    if not answered:
        return tuple(siblings)
    root, *others = siblings
    places = [sampled_before(root, cut), *(sampled_before(t, Cut(cut.turn, 0)) for t in others)]
    chance = fmean(answered)
    return tuple(
        replace(t, progress=((place, chance),)) for t, place in zip(siblings, places, strict=True)
    )
