"""Find out what can be reached before anything is learned: return to a cell, then go on from it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Annotated

from annotated_types import Ge, Le

from agentrl.core.errors import DeadlineError, EnvError
from agentrl.core.graph import Cell, StateGraph, as_text
from agentrl.core.protocols import CellSelector, Env, Runner
from agentrl.core.registry import register
from agentrl.core.seeds import derive_seed
from agentrl.core.shapes import DefaultPart, Slot
from agentrl.core.types import Action, Found, Task
from agentrl.explore.archive import Archive
from agentrl.explore.ground import DivergedError, Ground, Restore, check_explorable

logger = logging.getLogger(__name__)
MISSES = 2
"""Times that a way may lead elsewhere before its cell is given up."""


@register("explore", "go_explore")
@dataclass(frozen=True, kw_only=True)
class GoExplore:
    """Before training, tasks are explored from an archive of cells: choose one, return to it, take
    random actions (Go-Explore, Ecoffet et al. 2021, arXiv 1901.10995, phase 1). The shortest way to
    a success becomes a demonstration. No expert, no policy; the env's own success alone is used.
    """

    tasks: Annotated[int, Ge(1)] = 40
    """Train tasks that are explored (1 or more)."""
    budget: Annotated[int, Ge(1)] = 4_000
    """Env steps for each task at most (1 or more); replayed ones count."""
    steps: Annotated[int, Ge(1)] = 10
    """Actions of one visit (1 or more)."""
    untried: bool = True
    """Prefer actions that were not taken in this cell yet."""
    repeat: Annotated[float, Ge(0), Le(1)] = 0.0
    """Chance that the last action is taken again (0..1); 0.95 is Atari's, harmful where things are
    toggled."""
    more: Annotated[int, Ge(0)] = 0
    """Env steps that a task is explored on after its first success, to find shorter ways."""
    selector: Annotated[CellSelector, Slot("selector")] = field(
        default_factory=DefaultPart("selector", "counts")
    )
    """Which cell is returned to."""
    restore: Restore = "auto"
    """By snapshot, or by replaying actions; `auto` takes snapshots where the env has them."""

    def check(self, env: Env) -> None:
        """Refuse an env that cannot be explored. Raises `ConfigError`."""
        check_explorable(env, self.restore)

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
        """Explore each task. One whose env fails is counted as failed; what it saw is kept."""
        found: list[Found] = []
        handle = await runner.open(env)
        try:
            with Archive(folder / "archive.sqlite") as archive:
                for task in tasks:
                    ground = Ground(task=task, env=handle, runner=runner, restore=self.restore)
                    visits = Visits(self, ground, Random(derive_seed(seed, "explore", task.id)))
                    found.append(await visits.explore())
                    if found[-1].failure is not None:
                        await runner.close(handle, is_broken=True)
                        handle = await runner.open(env)
                    if visits.graph is not None:
                        archive.merge(task.id, visits.graph)
                    if len(found) % max(len(tasks) // 5, 1) == 0 or len(found) == len(tasks):
                        say(_progress(found, len(tasks)))
        finally:
            await runner.close(handle)
        return found


class Visits:
    """One task while it is explored."""

    def __init__(self, how: GoExplore, ground: Ground, rng: Random) -> None:
        self.how, self.ground, self.rng = how, ground, rng
        self.graph: StateGraph | None = None
        self.first: int | None = None
        self._open: list[Cell] = []
        self._opened: set[str] = set()
        self._missed: dict[str, int] = {}

    async def explore(self) -> Found:
        """Visit cells until the budget is spent or enough was found."""
        failure = None
        try:
            self.graph = StateGraph(await self.ground.begin())
            self._opens(self.graph.start)
            while self._goes_on():
                cell = self.how.selector.choose(self._open, self.rng)
                if cell is None:
                    break
                await self._visit(self.graph, cell)
        except (EnvError, DeadlineError) as error:
            logger.warning("explore: task %s failed: %s", self.ground.task.id, error)
            failure = str(error)
        way = None if self.graph is None else shortest_success(self.graph)
        return Found(
            task=self.ground.task,
            actions=None if way is None else tuple(way),
            steps=self.ground.steps,
            first=self.first,
            cells=0 if self.graph is None else len(self.graph),
            replayed=self.ground.replayed,
            diverged=self.ground.diverged,
            failure=failure,
        )

    def _goes_on(self) -> bool:
        steps = self.ground.steps
        return steps < self.how.budget and (
            self.first is None or steps < self.first + self.how.more
        )

    def _opens(self, cell: Cell) -> None:
        if cell.key not in self._opened:
            self._opened.add(cell.key)
            self._open.append(cell)

    async def _visit(self, graph: StateGraph, cell: Cell) -> None:
        """Return to a cell and act from there."""
        source = cell
        source.chosen += 1
        source.since_new += 1
        try:
            trail = await self.ground.back_to(cell)
        except DivergedError:
            self._missed[cell.key] = self._missed.get(cell.key, 0) + 1
            if self._missed[cell.key] >= MISSES:
                self._open.remove(cell)
            return
        score, last = cell.score, None
        for _ in range(self.how.steps):
            last = await self._choose(cell, last)
            landed = await self.ground.take(last)
            added = graph.add(
                cell,
                last,
                landed.key,
                reward=landed.reward,
                trail=trail,
                score=score,
                is_terminal=landed.is_terminal,
                is_success=landed.is_success,
            )
            cell, trail, score = added.cell, added.way, added.score
            if added.is_new:
                source.since_new = 0
            if landed.is_success and self.first is None:
                self.first = self.ground.steps
            if landed.is_terminal or self.ground.steps >= self.how.budget:
                break
            if added.is_better:
                await self.ground.keep(cell.key)
                self._opens(cell)

    async def _choose(self, cell: Cell, last: Action | None) -> Action:
        legal = await self.ground.legal_actions()
        if last is not None and last in legal and self.rng.random() < self.how.repeat:
            return last
        fresh = [a for a in legal if as_text(a) not in cell.tried] if self.how.untried else []
        return self.rng.choice(fresh or legal)


def shortest_success(graph: StateGraph) -> list[Action] | None:
    """The fewest actions from the start to a success, of all that was seen."""
    ways = [
        graph.way(graph.start.key, cell.key) or cell.actions()
        for cell in graph.cells.values()
        if cell.is_success
    ]
    return min(ways, key=len) if ways else None


def _progress(found: Sequence[Found], count: int) -> str:
    solved = sum(one.actions is not None for one in found)
    failed = sum(one.failure is not None for one in found)
    return (
        f"explore: {len(found)} of {count} tasks, {solved} solved"
        f"{f', {failed} failed' if failed else ''}, {sum(one.cells for one in found):,} cells, "
        f"{sum(one.steps for one in found):,} env steps"
    )
