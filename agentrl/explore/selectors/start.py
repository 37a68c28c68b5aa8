"""No returning at all, for comparison."""

from __future__ import annotations

from dataclasses import dataclass

from agentrl.core.exploring import Choices
from agentrl.core.graph import Cell
from agentrl.core.registry import register


@register("selector", "start")
@dataclass(frozen=True, kw_only=True)
class FromStart:
    """Always the start: random episodes, the floor for any selector."""

    def choose(self, among: Choices) -> Cell | None:
        """The start; None where it cannot be returned to, or ends the task."""
        start = among.graph.start
        return start if start in among.cells and not start.is_terminal else None
