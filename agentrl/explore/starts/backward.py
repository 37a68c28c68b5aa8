"""From the end of a way that was found, backwards to its start."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Annotated

from annotated_types import Ge, Gt, Le

from agentrl.core.errors import ConfigError
from agentrl.core.registry import register
from agentrl.core.types import Action, Group, Json, Start, Sum, Task
from agentrl.explore.starts.cells import FILE, after, read_archive


@register("start", "backward")
@dataclass(kw_only=True)
class Backward:
    """Groups begin few actions before the end of their task's way to a success; farther from it
    when they succeed often enough, and in the end at the start, without any help (Salimans and Chen
    2018, arXiv 1812.03381; Go-Explore's phase 2, arXiv 1901.10995). The way is context, never
    trained.
    """

    archive: Path | None = None
    """An `archive.sqlite`; `none` is that of this run."""
    threshold: Annotated[float, Gt(0), Le(1)] = 0.2
    """Share of successes from which groups begin earlier (above 0, to 1)."""
    back: Annotated[int, Ge(1)] = 1
    """Actions before the end at first (1 or more)."""
    step: Annotated[int, Ge(1)] = 1
    """Actions by which the beginning moves (1 or more)."""
    together: bool = True
    """All tasks begin as far from their ends, moved by the mean of a step's groups; else each task
    has a distance of its own, moved by its own groups."""
    whole: Annotated[float, Ge(0), Le(1)] = 0.2
    """Share of groups that begin at the start all the while (0..1)."""
    _ways: dict[str, tuple[Action, ...]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    _back: int = field(default=0, init=False, repr=False, compare=False)
    """The distance of all tasks, and the first one of each."""
    _own: dict[str, int] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self._back = self.back

    def open(self, folder: Path) -> None:
        """Read the archive. Raises `ConfigError` if no task of it was solved."""
        path = self.archive or folder / FILE
        self._ways = {task: known.way for task, known in read_archive(path).items() if known.way}
        if not self._ways:
            raise ConfigError(
                f"start: no task of {path} was solved, so there is no way to go back on: raise "
                "explore.budget or explore.tasks"
            )

    def sample(self, task: Task, rng: Random) -> Start:
        """A point of the task's way; a reset on tasks without one."""
        return Start() if rng.random() < self.whole else self.at(task.id)

    def at(self, task: str) -> Start:
        """Where groups of the task begin now."""
        way = self._ways.get(task, ())
        return after(way, len(way) - self._own.get(task, self._back))

    def observe(self, groups: Sequence[Group], done: float) -> None:
        """Move what was succeeded from; groups that began elsewhere say nothing."""
        rates: dict[str, list[float]] = {}
        for group in groups:
            played = [bool(t.success) for t in group.trajectories if not t.stop.is_failure]
            task = group.task.id
            if played and task in self._ways and group.start == self.at(task):
                rates.setdefault(task, []).append(sum(played) / len(played))
        if self.together:
            every = [rate for own in rates.values() for rate in own]
            if every and sum(every) / len(every) >= self.threshold and self.is_away:
                self._back += self.step
            return
        for task, own in rates.items():
            if sum(own) / len(own) >= self.threshold and self.at(task).actions:
                self._own[task] = self._own.get(task, self._back) + self.step

    @property
    def is_away(self) -> bool:
        """Some task does not begin at its start yet."""
        return any(self.at(task).actions for task in self._ways)

    def metrics(self) -> dict[str, Sum]:
        """Mean actions from where tasks begin to the end, and the share that has no help."""
        lengths = [(len(way), len(self.at(task).actions)) for task, way in self._ways.items()]
        n = float(len(lengths))
        return {
            "start/back": Sum(float(sum(whole - led for whole, led in lengths)), n),
            "start/arrived": Sum(float(sum(led == 0 for _, led in lengths)), n),
        }

    def state(self) -> Json:
        """The distances."""
        return {"back": self._back, "own": dict(self._own)}

    def restore(self, state: Json) -> None:
        """Go on from `state()`. Raises `ConfigError` for anything else."""
        back = state.get("back") if isinstance(state, dict) else None
        own = state.get("own") if isinstance(state, dict) else None
        if not isinstance(back, int) or not isinstance(own, dict):
            raise ConfigError(f"start: expected the state of backward, got {state!r:.200}")
        self._back, self._own = back, {str(task): int(str(n)) for task, n in own.items()}
