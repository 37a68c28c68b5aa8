"""States that were entered less often are worth more."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from agentrl.core.errors import ConfigError
from agentrl.core.registry import register
from agentrl.core.types import Group, Json, Task, Trajectory


@register("bonus", "counts")
@dataclass(kw_only=True)
class Counts:
    """A turn that leads to state s is worth 1/sqrt(N(s)), N counting the states that all episodes
    of earlier steps entered and this one (`global`); 1 where its episode enters s for the first
    time, else 0 (`episodic`); or the product of both, the robust choice where it is unknown how
    much tasks have in common (`product`; Henaff et al. 2023, arXiv 2306.03236).
    """

    needs: ClassVar[frozenset[str]] = frozenset({"state_keys"})

    kind: Literal["global", "episodic", "product"] = "product"
    """What is counted."""
    pool: Literal["all", "task"] = "all"
    """Whether tasks share their counts, or each has its own."""
    _counts: dict[str, int] = field(default_factory=dict, init=False, repr=False, compare=False)
    """Visits by the state's digest."""

    def rate(self, groups: Sequence[Group]) -> list[list[list[float]]]:
        """`[group][trajectory][turn]`, each 0..1; global counts are as before these groups."""
        return [[self._rate(t) for t in group.trajectories] for group in groups]

    def observe(self, groups: Sequence[Group]) -> None:
        """Count what the groups entered; what branches share was entered once."""
        for group in groups:
            for i, trajectory in enumerate(group.trajectories):
                for k, key in enumerate(entered(trajectory)):
                    if key is not None and group.owner(i, k) == (i, k):
                        name = self._name(trajectory.task, key)
                        self._counts[name] = self._counts.get(name, 0) + 1

    def count(self, task: Task, key: str) -> int:
        """How often the state was entered in earlier steps."""
        return self._counts.get(self._name(task, key), 0)

    def _rate(self, trajectory: Trajectory) -> list[float]:
        known = {turn.state_key for turn in trajectory.turns[:1]}
        ratings = []
        for key in entered(trajectory):
            is_first = key not in known
            known.add(key)
            if key is None or (self.kind != "global" and not is_first):
                ratings.append(0.0)
            elif self.kind == "episodic":
                ratings.append(1.0)
            else:
                ratings.append(float((self.count(trajectory.task, key) + 1) ** -0.5))
        return ratings

    def _name(self, task: Task, key: str) -> str:
        text = f"{task.id}\n{key}" if self.pool == "task" else key
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()

    def state(self) -> Json:
        """The counts."""
        return dict(self._counts)

    def restore(self, state: Json) -> None:
        """Go on from `state()`.

        Raises:
            ConfigError: it is something else.
        """
        if not isinstance(state, dict):
            raise ConfigError(f"bonus: expected the state of counts, got {state!r:.200}")
        counts: dict[str, int] = {}
        for name, count in state.items():
            if not isinstance(count, int):
                raise ConfigError(f"bonus: expected whole numbers as counts, got {count!r:.200}")
            counts[name] = count
        self._counts = counts


def entered(trajectory: Trajectory) -> Iterator[str | None]:
    """The state that each turn led to; None where it is unknown."""
    for turn in trajectory.turns:
        yield turn.led_to
