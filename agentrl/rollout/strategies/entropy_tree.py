"""Branches where the policy became unsure after hearing from the env (ARPO)."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Annotated, ClassVar

from annotated_types import Ge, Gt, Le

from agentrl.core.protocols import Play
from agentrl.core.registry import register
from agentrl.core.seeds import derive_seed
from agentrl.core.types import Fork, Group, Start, Task, Trajectory, Turn
from agentrl.rollout.collecting import each_task, roots_of
from agentrl.rollout.strategies.flat import Flat


@register("strategy", "entropy_tree")
@dataclass(frozen=True, kw_only=True)
class EntropyTree:
    """`roots` episodes of each task; then, turn by turn, a branch off each with the probability
    `clip(1/2 + weight (H_k - H_0), 0, 1)`, until the group is full; what is missing are further
    roots (ARPO, Dong et al. 2025, arXiv 2507.19849, sec. 3.2). `weight: 0` branches anywhere.

    `H_k` is the surprisal `-log p` of the first tokens of turn `k` over `ln_vocabulary`: one sample
    of the entropy that ARPO takes of its ten best tokens. Episodes are whole before they branch,
    and a branch repeats the actions of its parent. Evaluations are `flat`.
    """

    by_group: ClassVar[bool] = False
    branches: ClassVar[bool] = True

    roots: Annotated[int, Ge(1)] | None = None
    """Episodes before the first branch; `none` is half the group."""
    weight: Annotated[float, Ge(0)] = 0.2
    """How much more often an unsure turn is branched at (0 or more)."""
    tokens: Annotated[int, Ge(1)] = 20
    """First tokens of a turn that are looked at (1 or more)."""
    ln_vocabulary: Annotated[float, Gt(0)] = math.log(151_936)
    """What the surprisal is divided by; Qwen's."""
    rate: Annotated[float, Ge(0), Le(1)] = 0.5
    """Probability where nothing changed (0..1)."""

    async def collect(self, tasks: Sequence[Task], play: Play) -> list[Group]:
        """One scored group of `group_size` leaves per task, in the order of the tasks.

        Raises:
            ConfigError: there are more roots than a group has places.
        """
        if not play.more(1):
            return await Flat().collect(tasks, play)
        roots = roots_of(self.roots, play)
        return await each_task(tasks, lambda task, index: self._group(task, index, play, roots))

    async def _group(self, task: Task, index: int, play: Play, roots: int) -> Group:
        start = play.start(task)
        leaves = await self._play(task, start, index, play, [None] * roots, [])
        turn = 1
        while len(leaves) < play.group_size and any(turn < len(leaf.turns) for leaf in leaves):
            room = play.group_size - len(leaves)
            forks = [
                Fork(i, turn)
                for i, leaf in enumerate(leaves)
                if turn < len(leaf.turns) and self.is_chosen(leaf, i, turn)
            ]
            leaves += await self._play(task, start, index, play, forks[:room], leaves)
            turn += 1
        room = play.group_size - len(leaves)
        leaves += await self._play(task, start, index, play, [None] * room, leaves)
        return await play.score(Group(task=task, start=start, trajectories=tuple(leaves)))

    async def _play(
        self,
        task: Task,
        start: Start,
        index: int,
        play: Play,
        forks: Sequence[Fork | None],
        leaves: Sequence[Trajectory],
    ) -> list[Trajectory]:
        first = len(leaves)
        async with asyncio.TaskGroup() as running:
            played = [
                running.create_task(
                    play(
                        task,
                        start,
                        group=index,
                        sibling=first + place,
                        fork=None if fork is None else (leaves[fork.trajectory], fork),
                    )
                )
                for place, fork in enumerate(forks)
            ]
        return [one.result() for one in played]

    def is_chosen(self, leaf: Trajectory, sibling: int, turn: int) -> bool:
        """Whether a branch leaves `leaf` before its turn `turn`.

        A leaf is not branched at what it inherited, which its parent was. The draw depends on what
        was sampled before, so that it is repeated in a run that is.
        """
        if leaf.parent is not None and turn <= leaf.parent.turn:
            return False
        seed = derive_seed(leaf.task.id, sibling, turn, *leaf.turns[turn - 1].action_ids)
        change = self.surprisal(leaf.turns[turn]) - self.surprisal(leaf.turns[0])
        return Random(seed).random() < min(1.0, max(0.0, self.rate + self.weight * change))

    def surprisal(self, turn: Turn) -> float:
        """`-log p` of its first tokens, over `ln_vocabulary`."""
        return -math.fsum(turn.sampler_logprobs[: self.tokens]) / self.ln_vocabulary
