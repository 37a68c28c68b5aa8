"""How near an episode's calls of tools come to a solution's."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, NamedTuple, cast

from annotated_types import Ge

from agentrl.core.errors import ConfigError, DataError, RewardError
from agentrl.core.registry import register
from agentrl.core.types import Json, Score, Task, Trajectory, Turn
from agentrl.text.calls import Call, calls_of, canonical

NOTHING = Call("", {})
"""Stands for a message without a readable call: it matches nothing, and is counted."""


class Wanted(NamedTuple):
    """A call of the solution, and which calls of the solution must come before it."""

    call: Call
    after: tuple[int, ...]


@register("reward", "tool_calls")
@dataclass(frozen=True, kw_only=True)
class ToolCalls:
    """Compares the calls with `task.data["gold"]`, by names, arguments and order: 1.0 if all of the
    solution's calls were made and no other, at least 0.0. None without a solution.

    Calls that do not depend on each other may come in any order. Each turn is paid what its calls
    add. The parts are of the kind of ToolRL's (arXiv 2504.13958), which compares names, argument
    keys and argument values whatever the order; here each lies between 0 and 1, order counts where
    calls depend on each other, and calls beyond the solution's cost.
    """

    names: Annotated[float, Ge(0)] = 0.2
    """Weight of the tools' names: Dice's coefficient of those called and those of the solution."""
    arguments: Annotated[float, Ge(0)] = 0.3
    """Weight of the arguments: the share that is right, of the best fitting call of the same tool,
    averaged over the solution's calls."""
    exact: Annotated[float, Ge(0)] = 0.5
    """Weight of calls that are right in all, each behind those that it depends on: Dice's
    coefficient of the calls made and those of the solution."""

    def __post_init__(self) -> None:
        if self.names + self.arguments + self.exact <= 0:
            raise ConfigError("reward: names, arguments and exact are all 0: one must be more")

    async def __call__(self, trajectory: Trajectory) -> Score | None:
        """Value, turns that sum to it, and the parts."""
        gold = solution(trajectory.task)
        if gold is None:
            return None
        made: list[Call] = []
        values = [0.0]
        parts = self._parts(gold, made)
        for turn in trajectory.turns:
            made += said(turn)
            parts = self._parts(gold, made)
            values.append(self._value(parts))
        turns = tuple(after - before for before, after in pairwise(values))
        return Score(value=values[-1], turns=turns, parts=parts)

    def _parts(self, gold: Sequence[Wanted], made: Sequence[Call]) -> dict[str, float]:
        wanted = Counter(one.call.name for one in gold)
        shared = (wanted & Counter(call.name for call in made)).total()
        size = len(gold) + len(made)
        return {
            "names": 2 * shared / size,
            "arguments": likeness(gold, made),
            "exact": 2 * len(in_order(gold, made)) / size,
        }

    def _value(self, parts: Mapping[str, float]) -> float:
        weights = {"names": self.names, "arguments": self.arguments, "exact": self.exact}
        return sum(weights[key] * parts[key] for key in weights) / sum(weights.values())


def solution(task: Task) -> list[Wanted] | None:
    """The solution that a task holds.

    Raises:
        RewardError: what the task holds is no list of calls.
    """
    gold = task.data.get("gold")
    if not isinstance(gold, list | tuple) or not gold:
        return None
    try:
        return [_wanted(cast("Mapping[str, Json]", entry)) for entry in gold]
    except (AttributeError, KeyError, TypeError, DataError) as error:
        raise RewardError(
            'tool_calls: expected calls such as {"name": ..., "arguments": {...}, "after": [0]} as '
            f"data['gold'] of task {task.id}, got {gold!r:.200}"
        ) from error


def _wanted(entry: Mapping[str, Json]) -> Wanted:
    one = Call(cast("str", entry["name"]), cast("Mapping[str, Json]", entry["arguments"]))
    canonical(one)
    return Wanted(_frozen(one), tuple(cast("Sequence[int]", entry.get("after", ()))))


def said(turn: Turn) -> list[Call]:
    """The calls of a turn; `NOTHING` where it holds none that can be read."""
    if turn.action is None:
        return [NOTHING]
    try:
        return [_frozen(call) for call in calls_of(turn.action)] or [NOTHING]
    except DataError:
        return [NOTHING]


def _frozen(call: Call) -> Call:
    """The call with its arguments as JSON text, in which 1 and true differ."""
    return Call(call.name, {k: json.dumps(v, sort_keys=True) for k, v in call.arguments.items()})


def in_order(gold: Sequence[Wanted], made: Sequence[Call]) -> set[int]:
    """Which of the solution's calls were made, each behind those that it depends on."""
    done: set[int] = set()
    for call in made:
        for at, one in enumerate(gold):
            if at not in done and one.call == call and done.issuperset(one.after):
                done.add(at)
                break
    return done


def likeness(gold: Sequence[Wanted], made: Sequence[Call]) -> float:
    """Mean share of right arguments over the solution's calls; each call made serves one of them,
    those that are right in all first."""
    free = list(made)
    total = 0.0
    left = []
    for one in gold:
        if one.call in free:
            free.remove(one.call)
            total += 1.0
        else:
            left.append(one.call)
    for call in left:
        shares = [(_share(call, other), -at) for at, other in enumerate(free)]
        best, at = max(shares, default=(0.0, 0))
        if best > 0:
            del free[-at]
            total += best
    return total / len(gold)


def _share(call: Call, other: Call) -> float:
    """Share of arguments that both have with the same value; 0 for another tool."""
    if call.name != other.name:
        return 0.0
    keys = set(call.arguments) | set(other.arguments)
    same = [k for k in keys if k in call.arguments and k in other.arguments]
    return sum(call.arguments[k] == other.arguments[k] for k in same) / len(keys) if keys else 1.0
