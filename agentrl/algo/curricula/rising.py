"""Easy tasks first, harder ones as they are solved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Annotated

from annotated_types import Ge, Gt, Le, Lt

from agentrl.core.errors import ConfigError
from agentrl.core.registry import register
from agentrl.core.seeds import derive_seed
from agentrl.core.types import Json, Task


@register("curriculum", "rising")
@dataclass(kw_only=True)
class Rising:
    """Tasks of one difficulty, `task.data["level"]`, until they are solved; then of the next.

    The level rises when the mean success at it over the last `window` steps is at least
    `threshold`. It never falls, and the highest stays. The level of a step depends on the outcomes
    of the steps before it alone, so a resumed run goes on as it would have.
    """

    threshold: Annotated[float, Gt(0), Le(1)] = 0.7
    """Share of successes from which the level rises."""
    window: Annotated[int, Ge(1)] = 3
    """Steps at a level over which successes are averaged."""
    review: Annotated[float, Ge(0), Lt(1)] = 0.2
    """Share of a step's tasks that are drawn from all easier levels."""
    lag: Annotated[int, Ge(0)] = 0
    """Steps that are begun before the outcomes of those before them are known: 0 in
    `rollout.mode=sync`, else `rollout.max_staleness + 1`."""
    _levels: list[int] = field(init=False, repr=False, compare=False, default_factory=list)
    """The level (counted among those that there are) after each step that was trained."""
    _recent: list[float] = field(init=False, repr=False, compare=False, default_factory=list)
    """Success at the present level, step by step."""
    _places: dict[int, list[int]] = field(
        init=False, repr=False, compare=False, default_factory=dict
    )
    """Where the tasks of each level stand, easiest level first."""

    def next(self, tasks: Sequence[Task], count: int, step: int, seed: int) -> list[Task]:
        """Distinct tasks of the step's level and the easier ones, as long as there are enough.

        Raises:
            ConfigError: a task has no level, or the step was asked for too early for `lag`.
        """
        if not self._places:
            self._places = _by_level(tasks)
        known = step - self.lag
        if known > len(self._levels):
            raise ConfigError(
                f"curriculum.lag: step {step} was asked for when the outcomes of "
                f"{len(self._levels)} steps were known; set it to at least "
                f"{step - len(self._levels)} (rollout.max_staleness + 1)"
            )
        level = self._levels[known - 1] if known > 0 else 0
        rng = Random(derive_seed(seed, "curriculum", step))
        pools = list(self._places.values())
        easier = [place for pool in pools[:level] for place in pool]
        chosen = _draw(easier, round(self.review * count) if easier else 0, rng)
        chosen += _draw(pools[level], count - len(chosen), rng)
        return [tasks[place] for place in chosen]

    def observe(self, outcomes: Sequence[tuple[Task, float]]) -> None:
        """Tasks of the step that was trained last, each with its share of successes."""
        level = self._levels[-1] if self._levels else 0
        present = list(self._places)[level]
        here = [success for task, success in outcomes if task.data.get("level") == present]
        if here:
            self._recent = [*self._recent, sum(here) / len(here)][-self.window :]
        is_solved = sum(self._recent) / self.window >= self.threshold
        has_next = level + 1 < len(self._places)
        if len(self._recent) == self.window and is_solved and has_next:
            level, self._recent = level + 1, []
        self._levels.append(level)

    def state(self) -> Json:
        """The level after each step, and the successes that decide about the next."""
        return {"levels": list(self._levels), "recent": list(self._recent)}

    def restore(self, state: Json) -> None:
        """Go on from `state()`.

        Raises:
            ConfigError: it is something else.
        """
        levels = state.get("levels") if isinstance(state, dict) else None
        recent = state.get("recent") if isinstance(state, dict) else None
        if not (isinstance(levels, list) and all(isinstance(n, int) for n in levels)) or not (
            isinstance(recent, list) and all(isinstance(n, float | int) for n in recent)
        ):
            raise ConfigError(
                f"curriculum: expected the state of rising, {{levels, recent}}, got "
                f"{state!r:.200}; the checkpoint is of another config"
            )
        self._levels, self._recent = [*levels], [float(n) for n in recent]


def _by_level(tasks: Sequence[Task]) -> dict[int, list[int]]:
    """Positions of the tasks by level, the lowest level first."""
    places: dict[int, list[int]] = {}
    for place, task in enumerate(tasks):
        level = task.data.get("level")
        if not isinstance(level, int):
            raise ConfigError(
                f"curriculum: rising needs tasks that say how hard they are, an int at "
                f"task.data['level'] (env.levels of reasoning_gym), but {task.id} has "
                f"{dict(task.data)!r:.100}"
            )
        places.setdefault(level, []).append(place)
    return dict(sorted(places.items()))


def _draw(pool: Sequence[int], count: int, rng: Random) -> list[int]:
    """`count` of the pool in a random order, none twice before all were drawn."""
    drawn: list[int] = []
    while pool and len(drawn) < count:
        drawn += rng.sample(pool, min(len(pool), count - len(drawn)))
    return drawn
