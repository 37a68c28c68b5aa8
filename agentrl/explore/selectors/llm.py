"""Cells that somebody chooses who is shown what the env showed in them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated
from weakref import WeakKeyDictionary

from annotated_types import Ge

from agentrl.core.exploring import Choices, Proposer
from agentrl.core.graph import Cell, StateGraph
from agentrl.core.registry import register
from agentrl.core.shapes import Slot
from agentrl.explore.asking import Asking
from agentrl.explore.duties import ask_cell, system_text


@register("selector", "llm")
@dataclass(frozen=True, kw_only=True)
class Asked:
    """A proposer's choice, as Intelligent Go-Explore asks for it (Lu et al. 2024, arXiv
    2405.15143); actions stay the explorer's own. Any cell where the answer chooses none."""

    proposer: Annotated[Proposer, Slot("proposer")]
    """Who is asked."""
    rules: str = ""
    """What it is told of the env."""
    history: Annotated[int, Ge(0)] = 5
    """Earlier questions of the task, with their answers, that it is shown (0 or more)."""
    options: Annotated[int, Ge(2)] = 40
    """Cells that it is offered at most (2 or more)."""
    _asking: WeakKeyDictionary[StateGraph, Asking] = field(
        default_factory=WeakKeyDictionary, init=False, repr=False, compare=False
    )

    async def choose(self, among: Choices) -> Cell | None:
        """One in which something was not tried, else any; None if nothing can follow any."""
        cells = [cell for cell in among.cells if cell.is_frontier]
        cells = cells or [cell for cell in among.cells if not cell.is_terminal]
        if not cells:
            return None
        asking = self._asking.get(among.graph)
        if asking is None:
            asking = self._asking[among.graph] = Asking(
                proposer=self.proposer,
                task=among.task,
                rng=among.rng,
                system=system_text(self.rules, among.task.instruction),
                remembers=self.history,
            )
        return await ask_cell(asking, cells, self.options)
