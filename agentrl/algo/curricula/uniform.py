"""Every task as often as every other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from agentrl.core.registry import register
from agentrl.core.seeds import derive_seed
from agentrl.core.types import Task


@register("curriculum", "uniform")
@dataclass(frozen=True, kw_only=True)
class Uniform:
    """Passes over all tasks, each pass in a new order."""

    def next(self, tasks: Sequence[Task], count: int, step: int, seed: int) -> list[Task]:
        """Tasks `step * count` onwards of the endless shuffled sequence."""
        first = step * count
        orders: dict[int, list[int]] = {}
        chosen = []
        for position in range(first, first + count):
            lap, place = divmod(position, len(tasks))
            if lap not in orders:
                orders[lap] = list(range(len(tasks)))
                Random(derive_seed(seed, "curriculum", lap)).shuffle(orders[lap])
            chosen.append(tasks[orders[lap][place]])
        return chosen
