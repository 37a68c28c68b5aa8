"""Find out what can be reached before anything is learned: return to a cell, then go on from it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from random import Random
from typing import Annotated, Literal

from annotated_types import Ge, Le

from agentrl.core.exploring import Proposer
from agentrl.core.graph import Cell, as_text
from agentrl.core.registry import register
from agentrl.core.shapes import Slot, summary_of
from agentrl.core.types import Action
from agentrl.explore.asking import Asking
from agentrl.explore.duties import ask_action, system_text
from agentrl.explore.explorer import ArchiveExplorer
from agentrl.explore.ground import Ground
from agentrl.explore.shortlist import Shortlist
from agentrl.explore.visits import Visits


@register("explore", "go_explore")
@dataclass(frozen=True, kw_only=True)
class GoExplore(ArchiveExplorer):
    """Before training, tasks are explored from an archive of cells: choose one, return to it, take
    random actions (Go-Explore, Ecoffet et al. 2021, arXiv 1901.10995, phase 1). The shortest way to
    a success becomes a demonstration. No expert, no policy; the env's own success alone is used.
    """

    untried: bool = True
    """Prefer actions that were not taken in this cell yet."""
    order: Literal["random", "listed", "rare"] = "random"
    """Which of them comes first: any, the first that the env lists (classic graph search), or one
    that was taken as seldom in the task as any: picking up, say, among many turns."""
    guide: Annotated[Proposer | None, Slot("proposer")] = None
    """Who is asked for the action among those that come first; whoever gives no answer leaves it to
    chance. `none` asks nobody."""
    shortlist: Shortlist | None = None
    """Leave out actions whose words are far from the task's; `none` leaves out nothing."""
    repeat: Annotated[float, Ge(0), Le(1)] = 0.0
    """Chance that the last action is taken again (0..1); 0.95 is Atari's, harmful where things are
    toggled."""

    def asked(self) -> list[Proposer]:
        """The guide, and whom the selector asks."""
        return [*([] if self.guide is None else [self.guide]), *super().asked()]

    def visits(self, ground: Ground, rng: Random) -> Visits:
        """One task while it is explored."""
        return RandomVisits(self, ground, rng)


class RandomVisits(Visits):
    """Acts at random."""

    def __init__(self, how: GoExplore, ground: Ground, rng: Random) -> None:
        super().__init__(how, ground, rng)
        self.random = how
        self.taken: Counter[str] = Counter()
        self.asking: Asking | None = None
        if how.guide is not None:
            rules = system_text(summary_of(type(ground.env.template)), ground.task.instruction)
            self.asking = Asking(proposer=how.guide, task=ground.task, rng=rng, system=rules)

    async def act(self, cell: Cell, legal: list[Action], last: Action | None) -> Action:
        """An action that was not tried here, if there is one."""
        among = self._first(cell, legal, last)
        if self.asking is not None:
            action = await ask_action(self.asking, cell, among)
        elif self.random.order == "listed":
            action = among[0]
        else:
            action = self.rng.choice(among)
        self.taken[as_text(action)] += 1
        return action

    def _first(self, cell: Cell, legal: list[Action], last: Action | None) -> list[Action]:
        """The actions that come before all others."""
        if last is not None and last in legal and self.rng.random() < self.random.repeat:
            return [last]
        if self.random.shortlist is not None:
            legal = self.random.shortlist.cut(self.ground.task, legal, self.rng)
        untried = self.random.untried
        fresh = [a for a in legal if as_text(a) not in cell.tried] if untried else []
        among = fresh or legal
        if self.random.order == "rare" and self.asking is None:
            least = min(self.taken[as_text(action)] for action in among)
            return [action for action in among if self.taken[as_text(action)] == least]
        return among

    def metrics(self) -> dict[str, float]:
        """What the guide was asked."""
        return self.asking.metrics() if self.asking is not None else {}
