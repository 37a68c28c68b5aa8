"""Only the actions that sound like the task, most of the time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Annotated

from annotated_types import Ge, Le

from agentrl.core.graph import as_text
from agentrl.core.types import Action, Task
from agentrl.explore.embedding import cosine, embed


@dataclass(frozen=True, kw_only=True)
class Shortlist:
    """The `most` actions whose words are nearest to the task's instruction, and all of them with
    chance `full` (Language Guided Exploration, Golchha et al. 2024, arXiv 2403.03141). Hashed
    n-grams stand for the tuned encoder."""

    most: Annotated[int, Ge(1)] = 50
    """Actions that are left (1 or more)."""
    full: Annotated[float, Ge(0), Le(1)] = 0.1
    """Chance that nothing is left out (0..1)."""

    def cut(self, task: Task, actions: Sequence[Action], rng: Random) -> list[Action]:
        """Those that are left, in their order; never none of some. A task without an instruction
        leaves all."""
        if len(actions) <= self.most or not task.instruction.strip():
            return list(actions)
        if rng.random() < self.full:
            return list(actions)
        wanted = embed(task.instruction)
        scores = [cosine(wanted, embed(as_text(action))) for action in actions]
        best = sorted(range(len(actions)), key=lambda i: (-scores[i], i))[: self.most]
        return [actions[i] for i in sorted(best)]
