"""The fewest actions from the start to each cell, kept while a graph grows."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from agentrl.core.types import Action


@dataclass
class Nearest:
    """Breadth-first distances over the edges that were seen; each new edge is followed as far as it
    shortens anything."""

    start: str
    _steps: dict[str, int] = field(default_factory=dict)
    _before: dict[str, tuple[str, Action]] = field(default_factory=dict)
    _edges: dict[str, dict[str, Action]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._steps[self.start] = 0

    def steps(self, key: str) -> int:
        """Actions to a cell that was seen."""
        return self._steps[key]

    def before(self, key: str) -> tuple[str, Action]:
        """The cell before it on the nearest way, and the action that leads on. Raises `KeyError`
        for the start."""
        return self._before[key]

    def add(self, source: str, action: Action, target: str) -> list[str]:
        """An action led from one cell to another; the cells that are nearer now, new ones too."""
        self._edges.setdefault(source, {})[target] = action
        nearer: list[str] = []
        waiting = deque([(source, action, target)])
        while waiting:
            here, by, there = waiting.popleft()
            steps = self._steps[here] + 1
            if steps < self._steps.get(there, steps + 1):
                self._steps[there] = steps
                self._before[there] = (here, by)
                nearer.append(there)
                waiting.extend((there, a, key) for key, a in self._edges.get(there, {}).items())
        return nearer
