"""One task while it is explored: cells are chosen, returned to, and gone on from."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Sequence
from random import Random
from typing import TYPE_CHECKING

from agentrl.core.errors import DeadlineError, EnvError
from agentrl.core.exploring import Choices, Found
from agentrl.core.graph import Added, Cell, StateGraph, Trail, Visit
from agentrl.core.types import Action
from agentrl.explore.ground import DivergedError, Ground, Landed
from agentrl.explore.hindsight import reached
from agentrl.explore.nearest import Nearest
from agentrl.explore.plans import Model
from agentrl.explore.tidying import tidied

if TYPE_CHECKING:
    from agentrl.explore.explorer import ArchiveExplorer

logger = logging.getLogger(__name__)
MISSES = 2
"""Times that a way may lead elsewhere before its cell is given up."""
SHOWN = 400
"""Characters of what the env shows that a cell keeps."""


class Visits:
    """Chooses cells by the explorer's selector and leaves the actions to those who derive."""

    def __init__(self, how: ArchiveExplorer, ground: Ground, rng: Random) -> None:
        self.how, self.ground, self.rng = how, ground, rng
        self.graph: StateGraph | None = None
        self.model = Model()
        self.longest = 0
        """Actions of the longest way that was taken."""
        self.first: int | None = None
        self.open: list[Cell] = []
        self.others: list[Found] = []
        """Other tasks that were solved on the way (hindsight)."""
        self.near: Nearest | None = None
        self._tidy: tuple[Action, ...] = ()
        self._failure: str | None = None
        self._here = ""
        self._opened: set[str] = set()
        self._spent: set[str] = set()
        self._missed: dict[str, int] = {}

    async def explore(self) -> Found:
        """Visit cells until the budget is spent or enough was found."""
        try:
            graph = self.graph = StateGraph(await self.ground.begin())
            graph.start.text = self.ground.text[:SHOWN]
            self._here = graph.start.key
            self.near = Nearest(graph.start.key) if self.how.shortcuts else None
            self._opens(graph.start)
            while self._goes_on():
                cell = await self.pick(self.open, graph)
                if cell is None:
                    break
                await self._visit(graph, cell)
            await self._tidied(graph)
            self.others = await self._reached(graph)
        except (EnvError, DeadlineError) as error:
            logger.warning("explore: task %s failed: %s", self.ground.task.id, error)
            self._failure = str(error)
        return Found(
            task=self.ground.task,
            ways=() if self.graph is None else self._ways(self.graph),
            steps=self.ground.steps - sum(other.steps for other in self.others),
            first=self.first,
            cells=0 if self.graph is None else len(self.graph),
            replayed=self.ground.replayed,
            diverged=self.ground.diverged,
            failure=self._failure,
            metrics=self.metrics(),
        )

    async def _reached(self, graph: StateGraph) -> list[Found]:
        """Other tasks that were solved on the way."""
        if not self.how.hindsight:
            return []
        cells = [cell for cell in self.open if cell.depth and self.ground.holds(cell)]
        return await reached(self.ground, graph, cells, self.how.hindsight, self.rng)

    async def _tidied(self, graph: StateGraph) -> None:
        """A success is known: try to reach it without detours."""

        async def plays(actions: tuple[Action, ...]) -> bool:
            if self.ground.steps + len(actions) > self.how.budget:
                return False
            try:
                return await self._walk(graph, actions)
            except DivergedError:  # counted; the start itself is another one now
                return False

        if self.how.tidy and self.first is not None:
            self._tidy = await tidied(ways_to_success(graph)[0], plays)

    async def _walk(self, graph: StateGraph, actions: Sequence[Action]) -> bool:
        """Whether these actions lead from the start to a success; all of them must be legal."""
        cell, score = graph.start, graph.start.score
        trail = await self.ground.back_to(cell)
        for number, action in enumerate(actions, 1):
            if action not in await self.ground.legal_actions():
                return False
            added, landed = await self._take(graph, cell, action, trail, score)
            cell, trail, score = added.cell, added.way, added.score
            if landed.is_terminal:
                return landed.is_success and number == len(actions)
        return False

    def _ways(self, graph: StateGraph) -> tuple[tuple[Action, ...], ...]:
        """Ways to a success, the best one first."""
        known = ways_to_success(graph)
        return tuple(dict.fromkeys((self._tidy, *known))) if self._tidy else known

    async def pick(self, cells: list[Cell], graph: StateGraph) -> Cell | None:
        """The cell that is returned to; None ends the task."""
        chosen = self.how.selector.choose(
            Choices(task=self.ground.task, cells=cells, graph=graph, here=self._here, rng=self.rng)
        )
        return await chosen if isinstance(chosen, Awaitable) else chosen

    async def act(self, cell: Cell, legal: list[Action], last: Action | None) -> Action | None:
        """The next action, None to end the visit; `last` is the one before it in this visit."""
        raise NotImplementedError

    async def keeps(self, added: Added) -> bool:
        """Whether a cell that has a new best way may be returned to."""
        return True

    def metrics(self) -> dict[str, float]:
        """What else there is to tell of the task."""
        return {}

    def _goes_on(self) -> bool:
        steps = self.ground.steps
        return steps < self.how.budget and (
            self.first is None or steps < self.first + self.how.more
        )

    def _opens(self, cell: Cell) -> None:
        if cell.key not in self._opened:
            self._opened.add(cell.key)
            self.open.append(cell)

    async def _visit(self, graph: StateGraph, cell: Cell) -> None:
        """Return to a cell and act from there."""
        cell.chosen += 1
        cell.since_new += 1
        try:
            await self._go_on(graph, cell)
        except DivergedError:
            self._missed[cell.key] = self._missed.get(cell.key, 0) + 1
            if self._missed[cell.key] >= MISSES:
                self.open.remove(cell)

    async def _go_on(self, graph: StateGraph, source: Cell) -> None:
        known = deque(self._shortcut(graph, source))
        cell = known[0][0] if known else source
        trail = await self.ground.back_to(cell)
        score, last, is_new, is_success = cell.score, None, False, False
        for _ in range(self.how.steps + len(known)):
            legal = await self.ground.legal_actions()
            cell.legal = len(legal)
            if known and known[0][0] is cell:
                last = known.popleft()[1]
            else:
                known.clear()
                last = await self.act(cell, legal, last)
            if last is None:
                break
            added, landed = await self._take(graph, cell, last, trail, score)
            cell, trail, score = added.cell, added.way, added.score
            self.longest = max(self.longest, trail.length)
            is_new, is_success = is_new or added.is_new, landed.is_success
            if landed.is_success and self.first is None:
                self.first = self.ground.steps
            if landed.is_terminal or self.ground.steps >= self.how.budget:
                break
            if (added.is_better or cell.key not in self._opened) and await self.keeps(added):
                await self.ground.keep(cell.key)
                self._opens(cell)
        if is_new:
            source.since_new = 0
            source.led += 1
        self._here = cell.key
        frontier = len(graph) - len(self._spent)
        graph.visits.append(
            Visit(self.ground.steps, source.key, cell.key, len(graph), frontier, is_success)
        )

    async def _take(
        self,
        graph: StateGraph,
        cell: Cell,
        action: Action,
        trail: Trail | None,
        score: float,
    ) -> tuple[Added, Landed]:
        """Act, and note where that led."""
        landed = await self.ground.take(action)
        added = graph.add(
            cell,
            action,
            landed.key,
            reward=landed.reward,
            trail=trail,
            score=score,
            is_terminal=landed.is_terminal,
            is_success=landed.is_success,
        )
        self._learn(graph, cell, action, landed)
        self._note(cell, added, landed.text)
        return added, landed

    def _shortcut(self, graph: StateGraph, cell: Cell) -> list[tuple[Cell, Action]]:
        """Known actions to a cell that was only reached by a longer way, from the last cell on the
        nearest one that can be returned to as near as that; empty where there is no need."""
        if self.near is None or self.near.steps(cell.key) >= cell.depth:
            return []
        way: list[tuple[Cell, Action]] = []
        key = cell.key
        while key != graph.start.key:
            key, action = self.near.before(key)
            way.append((graph.cells[key], action))
            if self.near.steps(key) >= way[-1][0].depth and self.ground.holds(way[-1][0]):
                break
        return way[::-1]

    def _learn(self, graph: StateGraph, source: Cell, action: Action, landed: Landed) -> None:
        """What the step says of the env."""
        is_over = landed.is_terminal and not landed.is_cut
        if self.how.lessons:
            success = landed.is_success
            self.model.note(source.key, action, landed.key, is_over=is_over, is_success=success)
        if self.near is None or landed.is_success or is_over:
            return
        for key in self.near.add(source.key, action, landed.key):
            cell = graph.cells[key]
            if key not in self._opened and self.near.steps(key) < cell.depth:
                cell.is_terminal = False  # a limit ended the long way to it
                self._opens(cell)

    def _note(self, source: Cell, added: Added, text: str) -> None:
        """What was shown, when it was found, and in which cells everything was tried."""
        cell = added.cell
        if added.is_new:
            cell.found = self.ground.steps
        if added.is_better:
            cell.text = text[:SHOWN]
        for one in (source, cell):
            if one.is_frontier:
                self._spent.discard(one.key)
            else:
                self._spent.add(one.key)


def ways_to_success(graph: StateGraph) -> tuple[tuple[Action, ...], ...]:
    """The fewest actions from the start to a success through all that was seen, and the shortest
    that were taken in a row: where chance decides, only those lead there again."""
    cells = [cell for cell in graph.cells.values() if cell.is_success]
    if not cells:
        return ()
    taken = min((cell.actions() for cell in cells), key=len)
    shortest = min((graph.way(graph.start.key, cell.key) or taken for cell in cells), key=len)
    return tuple(dict.fromkeys((tuple(shortest), tuple(taken))))
