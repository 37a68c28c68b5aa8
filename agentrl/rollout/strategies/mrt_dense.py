"""Episodes with probes: how likely an answer would be right after each of their parts (MRT)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Annotated, ClassVar

from annotated_types import Ge

from agentrl.core.errors import ConfigError
from agentrl.core.protocols import Play
from agentrl.core.registry import register
from agentrl.core.types import Group, Start, Task, Trajectory
from agentrl.rollout.collecting import each_task
from agentrl.rollout.cuts import BEGINNING, Cut, cuts, onward, sampled_before
from agentrl.rollout.strategies.flat import Flat

ROOM = 1_000
"""Numbers that a group has for its episodes."""


@register("strategy", "mrt_dense")
@dataclass(frozen=True, kw_only=True)
class MrtDense:
    """`group_size` independent episodes of each task; after each of their parts, `probes` short
    ones are made to answer by `words`, whose share of successes is `J_j` (MRT's meta-prover, Qu et
    al. 2025, arXiv 2503.07572). For `advantage=mrt_dense`.

    Probes are not trained on and in no metric. Parts as in `mrt`. Evaluations are `flat`.
    """

    by_group: ClassVar[bool] = False

    words: str = "\n</think>\n\n"
    """What makes a reply answer: the end of its reasoning, or the beginning of an answer."""
    ends: str = r"\n\n|(?=\bWait\b)"
    """Where a part of a reply ends, as a regular expression; empty for turns alone."""
    probes: Annotated[int, Ge(1)] = 2
    """Answers after each part (1 or more)."""
    most: Annotated[int, Ge(1)] = 4
    """Places of an episode that are probed; of more, evenly spread ones (1 or more)."""

    async def collect(self, tasks: Sequence[Task], play: Play) -> list[Group]:
        """One scored group per task, in the order of the tasks.

        Raises:
            ConfigError: a group would have more episodes than can be numbered.
        """
        if not play.more(1):
            return await Flat().collect(tasks, play)
        total = play.group_size + self.probes * (play.group_size * self.most + 1)
        if total > ROOM:
            raise ConfigError(
                f"strategy.probes: {play.group_size} siblings with {self.probes} probes at up to "
                f"{self.most} places are {total} episodes of a task, at most {ROOM} are possible"
            )
        return await each_task(tasks, lambda task, index: self._group(task, index, play))

    async def _group(self, task: Task, index: int, play: Play) -> Group:
        start = play.start(task)
        async with asyncio.TaskGroup() as running:
            played = [
                running.create_task(play(task, start, group=index, sibling=sibling))
                for sibling in range(play.group_size)
            ]
        siblings = [one.result() for one in played]
        places = [(i, cut) for i, t in enumerate(siblings) for cut in self._places(t, play)]
        chances = await self._probe(task, start, index, play, siblings, places)
        group = await play.score(Group(task=task, start=start, trajectories=tuple(siblings)))
        found: list[list[tuple[int, float]]] = [
            [(0, chances[0])] if chances[0] is not None else [] for _ in siblings
        ]
        for (i, cut), chance in zip(places, chances[1:], strict=True):
            if chance is not None:
                found[i].append((sampled_before(siblings[i], cut), chance))
        told = [
            replace(t, progress=tuple(own))
            for t, own in zip(group.trajectories, found, strict=True)
        ]
        return replace(group, trajectories=tuple(told))

    def _places(self, sibling: Trajectory, play: Play) -> list[Cut]:
        if sibling.stop.is_failure:
            return []
        found = cuts(sibling, play.renderer, self.ends)
        n = min(self.most, len(found))
        return [found[(2 * k + 1) * len(found) // (2 * n)] for k in range(n)]

    async def _probe(
        self,
        task: Task,
        start: Start,
        index: int,
        play: Play,
        siblings: Sequence[Trajectory],
        places: Sequence[tuple[int, Cut]],
    ) -> list[float | None]:
        """Shares of successes: at the beginning, then at each place; None where all probes failed
        to be played."""
        words = play.renderer.encode(self.words)
        ways = [onward(siblings[i], i, cut, words, 0) for i, cut in [(0, BEGINNING), *places]]
        async with asyncio.TaskGroup() as running:
            probes = [
                running.create_task(
                    play(
                        task,
                        start,
                        group=index,
                        sibling=play.group_size + number * self.probes + again,
                        fork=fork,
                        opening=opening,
                    )
                )
                for number, (fork, opening) in enumerate(ways)
                for again in range(self.probes)
            ]
        ended = [probe.result() for probe in probes]
        shares = [ended[i : i + self.probes] for i in range(0, len(ended), self.probes)]
        right = [[float(bool(t.success)) for t in own if not t.stop.is_failure] for own in shares]
        return [fmean(own) if own else None for own in right]
