"""Drop groups of tasks that are too hard or too easy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Le

from agentrl.core.errors import ConfigError
from agentrl.core.registry import register
from agentrl.core.types import Group


@register("filter", "accuracy")
@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """Keep groups whose share of successes lies within `low..high`, and whose scores are not all
    equal, unless a `bonus` tells them apart (online difficulty filtering, Bae et al. 2025, arXiv
    2504.03380)."""

    low: Annotated[float, Ge(0), Le(1)] = 0.1
    """Smallest share of successes among the scored episodes (0..1)."""
    high: Annotated[float, Ge(0), Le(1)] = 0.9
    """Largest share (0..1)."""

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ConfigError(f"low: must be at most high={self.high} (got {self.low})")

    def __call__(self, groups: Sequence[Group]) -> list[Group]:
        """The groups within the bounds, in order."""
        return [group for group in groups if self._keeps(group)]

    def _keeps(self, group: Group) -> bool:
        wins = [bool(group.trajectories[i].success) for i in group.scored]
        within = bool(wins) and self.low <= sum(wins) / len(wins) <= self.high
        return within and not group.is_dead
