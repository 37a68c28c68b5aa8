"""Some groups begin in cells of the archive, fewer and fewer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le

from agentrl.core.errors import ConfigError
from agentrl.core.registry import register
from agentrl.core.types import Group, Json, Start, Sum, Task
from agentrl.explore.starts.cells import FILE, Known, after, read_archive


@register("start", "archive")
@dataclass(kw_only=True)
class FromArchive:
    """With probability `share`, which falls linearly to 0, a group begins in a cell of its task
    instead of its start; all siblings in the same one. The way there is context, never trained.
    """

    archive: Path | None = None
    """An `archive.sqlite`; `none` is that of this run."""
    share: Annotated[float, Ge(0), Le(1)] = 0.5
    """Probability at first (0..1)."""
    anneal: Annotated[float, Gt(0), Le(1)] = 0.5
    """Share of training after which it has fallen to 0 (above 0, to 1)."""
    cells: Literal["way", "any"] = "way"
    """Any point of the way to a success (any cell where there is none), or always any cell: those
    seen less often more often, by 1/sqrt(seen + 1)."""
    _known: dict[str, Known] = field(default_factory=dict, init=False, repr=False, compare=False)
    _done: float = field(default=0.0, init=False, repr=False, compare=False)

    def open(self, folder: Path) -> None:
        """Read the archive."""
        self._known = read_archive(self.archive or folder / FILE)

    @property
    def probability(self) -> float:
        """That a group begins away from its start, now."""
        return self.share * max(0.0, 1.0 - self._done / self.anneal)

    def sample(self, task: Task, rng: Random) -> Start:
        """A cell, or a reset; always a reset on tasks that were not explored."""
        known = self._known.get(task.id)
        if known is None or rng.random() >= self.probability:
            return Start()
        if self.cells == "way" and known.way:
            return after(known.way, rng.randrange(1, max(len(known.way), 2)))
        cells = [c for c in known.graph.cells.values() if c.depth and not c.is_terminal]
        if not cells:
            return Start()
        [cell] = rng.choices(cells, [1 / math.sqrt(c.seen + 1) for c in cells])
        return Start(cell=cell.key, actions=tuple(cell.actions()))

    def observe(self, groups: Sequence[Group], done: float) -> None:
        """How far training is."""
        self._done = done

    def metrics(self) -> dict[str, Sum]:
        """The probability."""
        return {"start/share": Sum(self.probability)}

    def state(self) -> Json:
        """How far training was."""
        return {"done": self._done}

    def restore(self, state: Json) -> None:
        """Go on from `state()`. Raises `ConfigError` for anything else."""
        done = state.get("done") if isinstance(state, dict) else None
        if not isinstance(done, int | float):
            raise ConfigError(f"start: expected the state of archive, got {state!r:.200}")
        self._done = float(done)
