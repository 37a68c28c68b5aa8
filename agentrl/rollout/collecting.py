"""What strategies share: a group for each task, all at the same time, and how many are roots."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from agentrl.core.errors import ConfigError
from agentrl.core.protocols import Play
from agentrl.core.types import Group, Task


async def each_task(
    tasks: Sequence[Task], group: Callable[[Task, int], Awaitable[Group]], *, first: int = 0
) -> list[Group]:
    """One group per task, in the order of the tasks; `first` numbers the first one. The first that
    raises ends the others."""

    async def one(task: Task, index: int) -> Group:
        return await group(task, index)

    async with asyncio.TaskGroup() as running:
        groups = [
            running.create_task(one(task, index)) for index, task in enumerate(tasks, start=first)
        ]
    return [group.result() for group in groups]


def roots_of(asked: int | None, play: Play) -> int:
    """Episodes of a tree from the start: half the group (1 at least), or what is asked for.

    Raises:
        ConfigError: there are more roots than a group has places.
    """
    roots = max(1, play.group_size // 2) if asked is None else asked
    if roots > play.group_size:
        raise ConfigError(
            f"strategy.roots: must be at most rollout.group_size={play.group_size} (got {roots})"
        )
    return roots
