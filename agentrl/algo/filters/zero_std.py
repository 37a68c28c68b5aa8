"""Drop groups that teach nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agentrl.core.registry import register
from agentrl.core.types import Group


@register("filter", "zero_std")
@dataclass(frozen=True, kw_only=True)
class ZeroStd:
    """Keep groups whose scores are not all equal: dynamic sampling's condition (DAPO, arXiv
    2503.14476, eq. 11). With `strategy: dynamic`, further tasks make up for those that are dropped.
    Where a `bonus` tells siblings apart, their group is kept too.
    """

    def __call__(self, groups: Sequence[Group]) -> list[Group]:
        """The groups that teach something, in order."""
        return [group for group in groups if not group.is_dead]
