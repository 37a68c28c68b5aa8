"""Conditions of the env that a bonus wants to know of, asked for while an episode is played."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from agentrl.core.errors import EnvError
from agentrl.core.exploring import Watched
from agentrl.core.types import Task

Watch = Callable[[Task], Awaitable[Sequence[Watched]]]
Ask = Callable[[str, str], Awaitable[object]]
"""The env's method and its argument -> what it answers."""


@dataclass(kw_only=True)
class Watching:
    """The goals of one episode, and which of them hold now."""

    watch: Watch
    goals: tuple[Watched, ...] = ()
    first: tuple[bool | None, ...] = ()
    """Which held before the first turn."""

    async def begin(self, task: Task, ask: Ask) -> None:
        """Ask for the first time."""
        self.goals = tuple(await self.watch(task))
        self.first = await self.held(ask)

    async def held(self, ask: Ask) -> tuple[bool | None, ...]:
        """Which goals are true; None where nobody can tell. Raises `EnvError` for other answers."""
        found: list[bool | None] = []
        for _, condition in self.goals:
            answer = None if condition is None else await ask("check", condition)
            if not isinstance(answer, bool | None):
                raise EnvError(f"expected True, False or None from check(), got {answer!r:.200}")
            found.append(answer)
        return tuple(found)
