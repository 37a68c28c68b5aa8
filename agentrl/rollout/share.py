"""Several processes play one step: each its share of the tasks, and all of them see every group.

A group that came from another rank is slim: rewards, scores and sampled tokens are there, so that
statistics and estimators see the whole step; prompts and pictures stayed where they were sampled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import ClassVar, TypeVar

from agentrl.core.protocols import Share
from agentrl.core.types import Group, Task, Trajectory

T = TypeVar("T")


@dataclass(frozen=True)
class Solo:
    """The only process there is."""

    rank: ClassVar[int] = 0
    world: ClassVar[int] = 1

    def exchange(self, value: T) -> list[T]:
        """The value: there is one rank."""
        return [value]


def own_tasks(share: Share, tasks: Sequence[Task]) -> list[Task]:
    """This rank's tasks: every `world`-th, beginning with its own number."""
    return list(tasks[share.rank :: share.world])


def all_groups(share: Share, groups: Sequence[Group]) -> list[Group]:
    """The groups of all ranks in the order of the tasks; this rank's own ones are whole."""
    if share.world == 1:
        return list(groups)
    everyone: list[list[Group]] = share.exchange([_slim(group) for group in groups])
    everyone[share.rank] = list(groups)
    return [group for turn in zip_longest(*everyone) for group in turn if group is not None]


def _slim(group: Group) -> Group:
    trajectories = tuple(_slim_trajectory(t) for t in group.trajectories)
    greedy = None if group.greedy is None else _slim_trajectory(group.greedy)
    return replace(group, trajectories=trajectories, greedy=greedy, is_remote=True)


def _slim_trajectory(trajectory: Trajectory) -> Trajectory:
    turns = tuple(replace(turn, prompt_ids=()) for turn in trajectory.turns)
    return replace(trajectory, turns=turns, pixels={})
