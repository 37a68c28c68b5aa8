"""Goals that were suggested are worth something, once an episode."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar

from annotated_types import Ge, Le

from agentrl.core.errors import ConfigError
from agentrl.core.graph import as_text
from agentrl.core.registry import register
from agentrl.core.types import Group, Trajectory, Turn
from agentrl.explore.captions import news, passages
from agentrl.explore.embedding import cosine, embed


@register("bonus", "ellm")
@dataclass(frozen=True, kw_only=True)
class Suggested:
    """The likeness of what happened to a goal that was suggested before the action, where that is
    above `threshold`; each goal pays once an episode (ELLM, Du et al. 2023, arXiv 2302.06692).

    What happened is each new line of the observation, and the action itself if it changed anything.
    Goals come from a table, a JSON object: a text -> the goals that are suggested while the
    observation or the task's instruction holds that text ("" always does).
    """

    needs: ClassVar[frozenset[str]] = frozenset({"texts"})

    table: Path
    """The table of goals."""
    threshold: Annotated[float, Ge(0), Le(1)] = 0.99
    """Likeness (cosine of hashed n-grams, 0..1) that has to be passed; .99 is nearly the same."""
    _goals: dict[str, tuple[str, ...]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_goals", read_table(self.table))

    def rate(self, groups: Sequence[Group]) -> list[list[list[float]]]:
        """`[group][trajectory][turn]`, each 0..1."""
        return [[self._rate(t) for t in group.trajectories] for group in groups]

    def observe(self, groups: Sequence[Group]) -> None:
        """Nothing outlives an episode."""

    def _rate(self, trajectory: Trajectory) -> list[float]:
        achieved: set[str] = set()
        ratings = []
        for turn, (before, after) in zip(trajectory.turns, passages(trajectory), strict=True):
            offered = self.suggested(f"{trajectory.task.instruction}\n{before}") - achieved
            pairs = itertools.product(happened(turn, before, after), sorted(offered))
            likest = max(((likeness(what, goal), goal) for what, goal in pairs), default=(0.0, ""))
            if likest[0] > self.threshold:
                achieved.add(likest[1])
            ratings.append(likest[0] if likest[0] > self.threshold else 0.0)
        return ratings

    def suggested(self, text: str) -> set[str]:
        """The goals that are suggested at a text."""
        return {goal for part, goals in self._goals.items() if part in text for goal in goals}


def likeness(one: str, other: str) -> float:
    """Cosine of two texts, as `explore/embedding.py` knows them."""
    return round(cosine(embed(one), embed(other)), 6)


def happened(turn: Turn, before: str, after: str) -> tuple[str, ...]:
    """Captions of a turn; none where the action was refused or changed nothing."""
    if turn.invalid or turn.action is None or before == after:
        return ()
    return (*news(before, after), as_text(turn.action))


def read_table(path: Path) -> dict[str, tuple[str, ...]]:
    """A table of goals. Raises `ConfigError` if it is none."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"table: {path} cannot be read as JSON ({error})") from error
    if not isinstance(raw, dict) or not all(
        isinstance(goals, list) and all(isinstance(goal, str) for goal in goals)
        for goals in raw.values()
    ):
        raise ConfigError(
            f"table: expected {path} to hold an object such as "
            '{"": ["a goal"], "a door": ["open the door"]}'
        )
    return {part: tuple(goals) for part, goals in raw.items()}
