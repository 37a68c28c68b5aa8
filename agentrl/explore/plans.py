"""What is best in each state that was seen: plans made of all that exploring tried, and lessons.

Exploring ends with far more than one way to a success: a graph of states, most of which have a way
on that is now known. A model counts where each action led; value iteration over it says what to do
in every state that has a way (where chance decides, by the shares that were seen); a lesson begins
in one of those states and is played by that plan. No expert is asked: what nobody tried is unknown.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random

from agentrl.core.graph import Cell, as_text
from agentrl.core.types import Action, Start

WON, LOST = "\0won", "\0lost"
"""Where an action leads that ends the episode; no cell has such a key."""
DISCOUNT = 0.98
"""Of one action: less is worth what is reached later."""
TOLERANCE = 1e-6
SWEEPS = 1_000
DOUBT = 1.0
"""Where chance decides, so many tries of each action count as lost beside those that were seen."""


@dataclass
class Model:
    """How often each action led where, over all tasks that begin alike."""

    led: dict[str, dict[str, Counter[str]]] = field(default_factory=dict)
    """Cell -> an action's text -> cell -> times."""
    actions: dict[str, Action] = field(default_factory=dict)

    def note(
        self, source: str, action: Action, target: str, *, is_over: bool, is_success: bool
    ) -> None:
        """An action was taken once."""
        text = as_text(action)
        self.actions.setdefault(text, action)
        place = WON if is_success else LOST if is_over else target
        self.led.setdefault(source, {}).setdefault(text, Counter())[place] += 1

    def add(self, other: Model) -> None:
        """Count what another one counted as well."""
        self.actions.update(other.actions)
        for source, tried in other.led.items():
            for text, places in tried.items():
                self.led.setdefault(source, {}).setdefault(text, Counter()).update(places)

    @property
    def is_random(self) -> bool:
        """Some action led to different places."""
        return any(len(places) > 1 for tried in self.led.values() for places in tried.values())


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The best action in each cell from which a success is known to be reached, and its worth:
    the discounted chance of a success (0..1]."""

    best: Mapping[str, Action] = field(default_factory=dict)
    worth: Mapping[str, float] = field(default_factory=dict)

    def steps(self, key: str) -> float:
        """Actions to a success from a cell, as the worth has it: exact where nothing is random."""
        return math.log(self.worth[key]) / math.log(DISCOUNT)


def plan_of(model: Model) -> Plan:
    """Value iteration over what was counted: `V(s) = max_a sum_s' n(s, a, s') / n(s, a) V(s')`
    times the discount, 1 for a success, 0 for any other end and where nothing was tried.

    Ties go to the action that comes first by its text, so that what is learned from several tasks
    does not contradict itself.
    """
    doubt = DOUBT if model.is_random else 0.0
    order = _back_from_success(model)
    values = {WON: 1.0}
    best: dict[str, Action] = {}
    for _ in range(SWEEPS):
        moved = 0.0
        for key in order:
            value, text = max(
                (_worth(places, values, doubt), _Last(text))
                for text, places in model.led[key].items()
            )
            moved = max(moved, abs(value - values.get(key, 0.0)))
            values[key] = value
            best[key] = model.actions[text.text]
        if moved <= TOLERANCE:
            break
    del values[WON]
    return Plan(best=best, worth=values)


@dataclass(frozen=True, slots=True)
class _Last:
    """A text that is greater where it comes earlier."""

    text: str

    def __lt__(self, other: _Last) -> bool:
        return self.text > other.text


def _worth(places: Counter[str], values: Mapping[str, float], doubt: float) -> float:
    hoped = sum(times * values.get(place, 0.0) for place, times in places.items())
    return DISCOUNT * hoped / (places.total() + doubt)


def _back_from_success(model: Model) -> list[str]:
    """Cells with a way to a success, the nearest first: values settle in few sweeps then."""
    before: dict[str, list[str]] = {}
    for source, tried in model.led.items():
        for place in {place for places in tried.values() for place in places}:
            before.setdefault(place, []).append(source)
    found: dict[str, None] = {}
    waiting = deque([WON])
    while waiting:
        for source in before.get(waiting.popleft(), ()):
            if source not in found:
                found[source] = None
                waiting.append(source)
    return list(found)


def lessons(
    cells: Sequence[Cell], model: Model, plan: Plan, *, count: int, longest: int, rng: Random
) -> tuple[Start, ...]:
    """Where lessons begin: at the task's start, then in cells that no lesson before comes through.

    Args:
        cells: the start first.
        longest: actions of a lesson at most, those that lead to its cell included: the longest that
            were taken, as a limit of the env may lie there.
    """
    start = cells[0]
    if start.key not in plan.best:
        return ()
    able = [
        cell
        for cell in cells
        if cell.key in plan.best and 0 < cell.depth <= longest - plan.steps(cell.key)
    ]
    rng.shuffle(able)
    seen = set(_through(start.key, model, plan))
    found = [Start()]
    for cell in able:
        if len(found) >= count:
            break
        if cell.key not in seen:
            seen.update(_through(cell.key, model, plan))
            found.append(Start(cell=cell.key, actions=tuple(cell.actions())))
    return tuple(found)


def _through(key: str, model: Model, plan: Plan) -> Iterator[str]:
    """The cells that the plan most likely comes through."""
    seen: set[str] = set()
    while key in plan.best and key not in seen:
        seen.add(key)
        yield key
        [(key, _)] = model.led[key][as_text(plan.best[key])].most_common(1)
