"""Subgroups of siblings, each told another budget of tokens (HBPO)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import MinLen

from agentrl.core.errors import ConfigError
from agentrl.core.protocols import Play
from agentrl.core.registry import register
from agentrl.core.types import Group, Opening, Task
from agentrl.rollout.collecting import each_task
from agentrl.rollout.strategies.flat import Flat


@register("strategy", "budget_subgroups")
@dataclass(frozen=True, kw_only=True)
class BudgetSubgroups:
    """The episodes of a task in as many equal subgroups as there are `budgets`, each made to begin
    its first reply with `words` that state its budget (HBPO, Lyu et al. 2025, arXiv 2507.15844).

    The words are seen and never trained; nothing enforces the budget, which is the reward's affair
    (`reward=budget`), and `thinking.budget` does not cut a reply that was begun like that. Where
    the chat template does not open the reasoning, `words` has to. Evaluations are `flat`.
    """

    by_group: ClassVar[bool] = False

    budgets: Annotated[tuple[int, ...], MinLen(1)] = (512, 1024, 2048, 2560)
    """Tokens that the subgroups are told to get by with (each 1 or more, each another one)."""
    words: str = "I will answer the question with {budget} tokens.\n"
    """What the first reply begins with; `{budget}` is the number."""

    def __post_init__(self) -> None:
        if len(set(self.budgets)) != len(self.budgets) or min(self.budgets) < 1:
            raise ConfigError(f"budgets: expected different numbers from 1 on, got {self.budgets}")
        if "{budget}" not in self.words:
            raise ConfigError(f"words: expected a text that holds {{budget}}, got {self.words!r}")

    async def collect(self, tasks: Sequence[Task], play: Play) -> list[Group]:
        """One scored group per task, in the order of the tasks; siblings in the order of budgets.

        Raises:
            ConfigError: a group cannot be divided into equal subgroups.
        """
        if not play.more(1):
            return await Flat().collect(tasks, play)
        if play.group_size % len(self.budgets):
            raise ConfigError(
                f"rollout.group_size: expected a multiple of the {len(self.budgets)} budgets of "
                f"strategy=budget_subgroups (got {play.group_size})"
            )
        return await each_task(tasks, lambda task, index: self._group(task, index, play))

    async def _group(self, task: Task, index: int, play: Play) -> Group:
        start, each = play.start(task), play.group_size // len(self.budgets)
        openings = [self.opening(play, budget) for budget in self.budgets for _ in range(each)]
        async with asyncio.TaskGroup() as running:
            siblings = [
                running.create_task(
                    play(task, start, group=index, sibling=sibling, opening=opening)
                )
                for sibling, opening in enumerate(openings)
            ]
            greedy = running.create_task(play.greedy(task, start, group=index))
        trajectories = tuple(sibling.result() for sibling in siblings)
        group = Group(task=task, start=start, trajectories=trajectories, greedy=greedy.result())
        return await play.score(group)

    def opening(self, play: Play, budget: int) -> Opening:
        """The words of a budget as tokens."""
        words = self.words.replace("{budget}", str(budget))
        return Opening(ids=play.renderer.encode(words), budget=budget, is_aside=True)
