"""The seams of exploration: what finds out, remembers, pays for what is new, and chooses starts.

`core/protocols.py` names them beside all others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import TYPE_CHECKING, Protocol

from agentrl.core.graph import Cell
from agentrl.core.types import Found, Group, Start, Task

if TYPE_CHECKING:
    from pathlib import Path

    from agentrl.core.protocols import Env, Runner


class StartSampler(Protocol):
    """Where episodes begin: at a reset, or in an archived cell."""

    def sample(self, task: Task, rng: Random) -> Start:
        """Where all siblings of this task begin."""
        ...


class CellSelector(Protocol):
    """Which cell of an archive is returned to."""

    def choose(self, cells: Sequence[Cell], rng: Random) -> Cell | None:
        """One of the cells; None if nothing can follow any of them."""
        ...


class Explorer(Protocol):
    """Finds out, before training, what can be reached on tasks of the train split."""

    @property
    def tasks(self) -> int:
        """How many tasks it explores."""
        ...

    def check(self, env: Env) -> None:
        """Refuse an env that cannot be explored. Raises `ConfigError`."""

    async def find(
        self,
        tasks: Sequence[Task],
        env: Env,
        runner: Runner,
        folder: Path,
        *,
        seed: int,
        say: Callable[[str], None],
    ) -> list[Found]:
        """What was found on each task. An archive is kept in `folder`."""
        ...


class Bonus(Protocol):
    """What the turns of a step's episodes are worth for the sake of exploring: the second channel,
    which never enters a score. One that remembers is `Stateful` as well.

    A turn is paid for where it led: `Turn.led_to` (with `needs` "state_keys"), `Turn.heard` and
    `Trajectory.opening` (with "texts"). All ranks see the groups of all of them in one order, those
    of others without prompts, and so remember the same.
    """

    @property
    def needs(self) -> frozenset[str]:
        """What episodes have to record: "state_keys", "texts"."""
        ...

    def rate(self, groups: Sequence[Group]) -> list[list[list[float]]]:
        """`[group][trajectory][turn]`, each 0 or more and about 1 at most, also of episodes that
        failed. What is remembered is as it was before these groups, so that siblings compare."""
        ...

    def observe(self, groups: Sequence[Group]) -> None:
        """Remember the groups, after they were rated."""
