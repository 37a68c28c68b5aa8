"""Tasks that still teach something."""

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


@register("curriculum", "unsolved")
@dataclass(kw_only=True)
class Unsolved:
    """Tasks in random order without those whose siblings all succeeded when they were last trained,
    which teach nothing now (the later stages of AceReason-Nemotron, arXiv 2505.16400).

    A step has distinct tasks while there are enough. What was solved is known from the steps before
    that were trained, and kept in checkpoints.
    """

    threshold: Annotated[float, Gt(0), Le(1)] = 1.0
    """Share of successes from which a task is solved."""
    review: Annotated[float, Ge(0), Lt(1)] = 0.0
    """Share of a step's tasks that are drawn from the solved ones."""
    _solved: set[str] = field(init=False, repr=False, compare=False, default_factory=set)
    """Ids of the tasks that were solved when they were last trained."""

    def next(self, tasks: Sequence[Task], count: int, step: int, seed: int) -> list[Task]:
        """Tasks that are not solved, then solved ones where those are too few."""
        order = list(range(len(tasks)))
        Random(derive_seed(seed, "curriculum", step)).shuffle(order)
        solved = [place for place in order if tasks[place].id in self._solved]
        others = [place for place in order if tasks[place].id not in self._solved]
        again = min(round(self.review * count), len(solved))
        chosen = [*others[: count - again], *solved][:count]
        laps = -(-count // max(len(chosen), 1))
        return [tasks[place] for place in (chosen * laps)[:count]]

    def observe(self, outcomes: Sequence[tuple[Task, float]]) -> None:
        """Tasks of the step that was trained last, each with its share of successes."""
        for task, success in outcomes:
            if success >= self.threshold:
                self._solved.add(task.id)
            else:
                self._solved.discard(task.id)

    def state(self) -> Json:
        """The solved tasks."""
        return {"solved": sorted(self._solved)}

    def restore(self, state: Json) -> None:
        """Go on from `state()`.

        Raises:
            ConfigError: it is something else.
        """
        solved = state.get("solved") if isinstance(state, dict) else None
        if not isinstance(solved, list) or not all(isinstance(name, str) for name in solved):
            raise ConfigError(
                f"curriculum: expected the state of unsolved, {{solved}}, got {state!r:.200}; the "
                "checkpoint is of another config"
            )
        self._solved = {str(name) for name in solved}
