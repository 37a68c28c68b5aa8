"""Several bonuses as one: their ratings add up by weight.

bonus:
  - {name: counts, weight: 1}
  - {name: e3b, weight: 0.5}
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from annotated_types import Gt

from agentrl.core import protocols
from agentrl.core.errors import ConfigError
from agentrl.core.exploring import Opens, Tells, Voice, Watched, Watches
from agentrl.core.registry import register
from agentrl.core.shapes import Slot
from agentrl.core.types import Group, Json, Sum, Task, merge_metrics


@dataclass(frozen=True, kw_only=True)
class Part:
    """One bonus of several."""

    bonus: Annotated[protocols.Bonus, Slot("bonus")]
    """The bonus and its settings."""
    weight: Annotated[float, Gt(0)] = 1.0
    """What its ratings are multiplied by (above 0)."""


@register("bonus", "several")
@dataclass(frozen=True, kw_only=True)
class Several:
    """The weighted sum of several bonuses; `bonus:` as a list makes one."""

    parts: tuple[Part, ...]
    """The bonuses, each with its `weight`."""

    def __post_init__(self) -> None:
        if not self.parts:
            raise ConfigError("parts: expected at least one bonus")
        if len(self._watching) > 1:
            raise ConfigError(
                f"parts: one bonus at most can have goals watched, got {len(self._watching)}"
            )

    @property
    def needs(self) -> frozenset[str]:
        """What any of them needs."""
        return frozenset[str]().union(*(part.bonus.needs for part in self.parts))

    def rate(self, groups: Sequence[Group]) -> list[list[list[float]]]:
        """`sum_j w_j b_j` of each turn."""
        totals = [[[0.0] * len(t.turns) for t in group.trajectories] for group in groups]
        for part in self.parts:
            for total_G, own_G in zip(totals, part.bonus.rate(groups), strict=True):
                for total_K, own_K in zip(total_G, own_G, strict=True):
                    for k, rating in enumerate(own_K):
                        total_K[k] += part.weight * rating
        return totals

    def observe(self, groups: Sequence[Group]) -> None:
        """Each remembers the groups."""
        for part in self.parts:
            part.bonus.observe(groups)

    @property
    def _watching(self) -> list[Watches]:
        found: list[object] = [part.bonus for part in self.parts]
        return [part for part in found if isinstance(part, Watches)]

    async def watch(self, task: Task) -> Sequence[Watched]:
        """The goals of the one that has any."""
        return await self._watching[0].watch(task) if self._watching else ()

    async def start(self, folder: Path, voice: Voice | None) -> None:
        """Make those ready that have to be."""
        for bonus in self._opening:
            await bonus.start(folder, voice)

    async def close(self) -> None:
        """Close those that were made ready."""
        for bonus in self._opening:
            await bonus.close()

    @property
    def _opening(self) -> list[Opens]:
        found: list[object] = [part.bonus for part in self.parts]
        return [part for part in found if isinstance(part, Opens)]

    def metrics(self) -> dict[str, Sum]:
        """Of those that have any."""
        found: list[object] = [part.bonus for part in self.parts]
        tell = [part.metrics() for part in found if isinstance(part, Tells)]
        return merge_metrics(tell)

    def state(self) -> Json:
        """The states of those that remember, by position."""
        found: dict[str, Json] = {}
        for i, part in enumerate(self.parts):
            if isinstance(part.bonus, protocols.Stateful):
                found[str(i)] = part.bonus.state()
        return found

    def restore(self, state: Json) -> None:
        """Go on from `state()`.

        Raises:
            ConfigError: it is something else.
        """
        keeping = {
            str(i): part.bonus
            for i, part in enumerate(self.parts)
            if isinstance(part.bonus, protocols.Stateful)
        }
        if not isinstance(state, dict) or set(state) != set(keeping):
            raise ConfigError(
                f"bonus: expected the states of {len(keeping)} bonuses, got {state!r:.200}"
            )
        for name, bonus in keeping.items():
            bonus.restore(state[name])
