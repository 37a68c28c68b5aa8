"""From what was seen of each task to the lessons that are played of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import TYPE_CHECKING

from agentrl.core.exploring import Found, Namer
from agentrl.core.graph import Cell
from agentrl.core.seeds import derive_seed
from agentrl.explore.plans import Model, Plan, lessons, plan_of

if TYPE_CHECKING:
    from agentrl.explore.visits import Visits


@dataclass(kw_only=True)
class School:
    """Tasks that begin in the same cell and show the same there are one task whose luck differs:
    what was seen of them is counted together."""

    count: int
    """Lessons of a task at most."""
    seed: int
    _models: dict[tuple[str, str], Model] = field(default_factory=dict)
    _pupils: dict[str, _Pupil] = field(default_factory=dict)

    def attend(self, visits: Visits) -> None:
        """A task was explored."""
        graph = visits.graph
        assert graph is not None
        begins = (graph.start.key, graph.start.text)
        self._models.setdefault(begins, Model()).add(visits.model)
        self._pupils[visits.ground.task.id] = _Pupil(
            begins=begins,
            cells=[cell for cell in graph.cells.values() if not cell.is_terminal],
            longest=visits.longest,
            name=visits.ground.name,
        )

    def taught(self, found: Sequence[Found]) -> list[Found]:
        """The same, with plans and lessons where a success is known."""
        plans = {begins: plan_of(model) for begins, model in self._models.items()}
        return [self._taught(one, plans) for one in found]

    def _taught(self, one: Found, plans: dict[tuple[str, str], Plan]) -> Found:
        pupil = self._pupils.get(one.task.id)
        if pupil is None:
            return one
        plan = plans[pupil.begins]
        starts = lessons(
            pupil.cells,
            self._models[pupil.begins],
            plan,
            count=self.count,
            longest=pupil.longest,
            rng=Random(derive_seed(self.seed, "lessons", one.task.id)),
        )
        return replace(one, plan=plan.best, lessons=starts, name=pupil.name)


@dataclass(frozen=True, kw_only=True)
class _Pupil:
    """What is kept of a task."""

    begins: tuple[str, str]
    cells: list[Cell]
    longest: int
    name: Namer
