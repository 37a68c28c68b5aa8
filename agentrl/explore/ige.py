"""Go-Explore led by a model: it chooses the state, the action, and what is worth keeping."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Annotated

from annotated_types import Ge

from agentrl.core.exploring import Proposer
from agentrl.core.graph import Added, Cell, StateGraph, as_text
from agentrl.core.registry import register
from agentrl.core.shapes import Slot, summary_of
from agentrl.core.types import Action
from agentrl.explore.asking import Asking
from agentrl.explore.duties import ask_action, ask_cell, ask_keep, system_text
from agentrl.explore.explorer import ArchiveExplorer
from agentrl.explore.ground import Ground
from agentrl.explore.visits import Visits


@register("explore", "intelligent_go_explore")
@dataclass(frozen=True, kw_only=True)
class IntelligentGoExplore(ArchiveExplorer):
    """Go-Explore whose three choices a proposer makes: the state to return to, the action, and
    whether a new state is kept (Intelligent Go-Explore, Lu et al. 2024, arXiv 2405.15143). What
    cannot be read becomes a random choice, and leaves a new state out without banning it; where
    everything was tried everywhere, all of it may be tried again.
    """

    proposer: Annotated[Proposer, Slot("proposer")]
    """Who is asked."""
    chooses_state: bool = True
    """It is asked which state is returned to; else `selector` says."""
    chooses_action: bool = True
    """It is asked what is done; else any action that was not tried."""
    keeps: bool = True
    """It is asked which new states are kept; else all are."""
    history: Annotated[int, Ge(0)] = 5
    """Earlier questions of the task, with their answers, that it is shown (0 or more)."""
    options: Annotated[int, Ge(2)] = 40
    """States that it is offered or shown at most (2 or more)."""
    rules: str = ""
    """What it is told of the env; empty for the env's own summary."""

    def asked(self) -> list[Proposer]:
        """The proposer, and that of its selector if it has one."""
        return [self.proposer, *super().asked()]

    def visits(self, ground: Ground, rng: Random) -> Visits:
        """One task while it is explored."""
        return LedVisits(self, ground, rng)


class LedVisits(Visits):
    """Asks before it goes anywhere."""

    def __init__(self, how: IntelligentGoExplore, ground: Ground, rng: Random) -> None:
        super().__init__(how, ground, rng)
        self.led = how
        rules = how.rules or summary_of(type(ground.env.template))
        self.asking = Asking(
            proposer=how.proposer,
            task=ground.task,
            rng=rng,
            system=system_text(rules, ground.task.instruction),
            remembers=how.history,
        )
        self._banned: set[str] = set()

    async def pick(self, cells: list[Cell], graph: StateGraph) -> Cell | None:
        """A state in which something was not tried; if there is none, all may be tried again."""
        among = [cell for cell in cells if cell.is_frontier]
        if not among:
            among = [cell for cell in cells if not cell.is_terminal]
            for cell in among:
                cell.tried.clear()
                self._spent.discard(cell.key)
            self.asking.counts["refills"] += 1
        if not among:
            return None
        if not self.led.chooses_state:
            return await super().pick(among, graph)
        return await ask_cell(self.asking, among, self.led.options)

    async def act(self, cell: Cell, legal: list[Action], last: Action | None) -> Action | None:
        """One that was not tried here; None if there is none."""
        fresh = [action for action in legal if as_text(action) not in cell.tried]
        if not fresh:
            return None
        if not self.led.chooses_action:
            return self.rng.choice(fresh)
        return await ask_action(self.asking, cell, fresh)

    async def keeps(self, added: Added) -> bool:
        """States that were kept stay, those that were left out are not asked about again."""
        key = added.cell.key
        if key in self._opened or not self.led.keeps:
            return True
        if key in self._banned:
            return False
        answer = await ask_keep(self.asking, added.cell, self.open, self.led.options)
        if answer is False:
            self._banned.add(key)
            self.asking.counts["banned"] += 1
        return answer is True

    def metrics(self) -> dict[str, float]:
        """What was asked."""
        return self.asking.metrics()
