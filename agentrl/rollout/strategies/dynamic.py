"""Dynamic sampling: play on until enough groups have something to teach."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Ge

from agentrl.core.protocols import Play
from agentrl.core.registry import register
from agentrl.core.types import Group, Task
from agentrl.rollout.strategies.flat import Flat


@register("strategy", "dynamic")
@dataclass(frozen=True, kw_only=True)
class Dynamic:
    """Play further tasks while fewer groups than there are tasks have different scores (DAPO, arXiv
    2503.14476, sec. 3.2).

    Each further batch has as many tasks as groups are missing, so that no informative group is
    surplus. All groups are returned, dull ones too, so that metrics speak of all episodes; `filter:
    zero_std` drops the dull ones. Without further tasks (evaluations) it is `flat`.
    """

    by_group: ClassVar[bool] = False

    max_gen_batches: Annotated[int, Ge(1)] = 10
    """Most batches of a step, the first one included; after them training goes on with what there
    is (`groups/trained` says how much)."""

    async def collect(self, tasks: Sequence[Task], play: Play) -> list[Group]:
        """Scored groups: one per task in their order, then those of the further batches."""
        groups: list[Group] = []
        batch: Sequence[Task] = tasks
        for number in range(1, self.max_gen_batches + 1):
            groups += await Flat().collect(batch, play, first=len(groups))
            missing = len(tasks) - sum(len(set(group.values)) > 1 for group in groups)
            if missing <= 0 or number == self.max_gen_batches:
                break
            batch = play.more(number)[:missing]
            if not batch:
                break
        return groups
