"""A proposer made worse by a known amount: what a teacher of that quality would have done."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Annotated

from annotated_types import Ge, Le

from agentrl.core.exploring import Proposer, Question, Voice
from agentrl.core.registry import register
from agentrl.core.seeds import derive_seed
from agentrl.core.shapes import Slot
from agentrl.explore.asking import parse_choice
from agentrl.explore.goals import Goal, goals_of, written


@register("proposer", "noisy")
@dataclass(kw_only=True)
class Noisy:
    """Each answer of another proposer is kept with a chance, and else replaced: a choice by any
    other option, a goal's place by one some cells away, its thing by another of those that the
    table's goals name (the simulated teacher of Words as Beacons, Ruiz-Gonzalez et al. 2024, arXiv
    2410.08632). An answer is always wrong in the same way.
    """

    proposer: Annotated[Proposer, Slot("proposer")]
    """Whose answers they are."""
    right: Annotated[float, Ge(0), Le(1)] = 1.0
    """Chance that an answer, or a goal of a list, is left as it is (0..1)."""
    off: Annotated[float, Ge(0)] = 2.0
    """Mean of the distance by which a place is moved, in cells of a grid (at least 1 is)."""
    spread: Annotated[float, Ge(0)] = 1.0
    """Standard deviation of that distance."""
    seed: Annotated[int, Ge(0)] = 0
    """Which answers are wrong."""
    replaced: int = field(default=0, init=False)
    """Choices and goals that were replaced."""

    async def start(self, folder: Path, voice: Voice | None) -> None:
        """Make the other ready."""
        await self.proposer.start(folder, voice)

    async def answer(self, question: Question, seed: int) -> str:
        """The other's answer, or a wrong one."""
        said = await self.proposer.answer(question, seed)
        rng = Random(derive_seed(self.seed, question.kind, question.task.id, question.key))
        if question.options:
            return self._chosen(said, len(question.options), rng)
        goals = goals_of(said)
        if not goals:
            return said
        return written([self._goal(goal, goals, rng) for goal in goals])

    def _chosen(self, said: str, n: int, rng: Random) -> str:
        choice = parse_choice(said, n)
        if choice is None or n < 2 or rng.random() < self.right:
            return said
        self.replaced += 1
        return json.dumps({"choice": 1 + (choice + rng.randrange(1, n)) % n})

    def _goal(self, goal: Goal, goals: list[Goal], rng: Random) -> Goal:
        if rng.random() < self.right:
            return goal
        self.replaced += 1
        if goal.kind == "position":
            distance = max(1, round(rng.gauss(self.off, self.spread)))
            return goal.moved(distance, rng)
        others = [other for other in goals if other.predicate != goal.predicate]
        return rng.choice(others) if others else goal.moved(1, rng)

    async def close(self) -> None:
        """Give back what the other holds."""
        await self.proposer.close()
