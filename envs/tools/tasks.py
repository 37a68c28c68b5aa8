"""Generates worlds, requests and their solutions, each from a seed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from functools import cache
from pathlib import Path
from random import Random
from typing import Literal, NamedTuple

from agentrl.core.starts import Beginning, Starts, digest
from agentrl.core.types import Json
from agentrl.envs.tools.apps import APPS, AppName, empty, facts, perform, toolbox
from agentrl.envs.tools.toolbox import RefusedError, World
from agentrl.text.calls import Call

TRIES = 20
"""Goals that are drawn for a place in a request until one fits the others."""
KINDS = ("plain", "hidden", "impossible")
"""A goal says all that its calls need; needs a lookup; cannot be reached."""
Pattern = Mapping[str, str | Sequence[str]]
"""A goal of `requests.yaml`."""


class Wanted(NamedTuple):
    """What decides which tasks there are."""

    apps: tuple[AppName, ...]
    steps_low: int
    steps: int
    distractors: int
    hidden: bool
    together: float
    infeasible: float
    ends: Literal["finish", "reached"]


class Gold(NamedTuple):
    """A call of a task's solution."""

    call: Call
    after: tuple[int, ...] = ()
    """Which calls of the solution must come before it."""
    message: int = 0
    """The first message that can hold it: 0, or 1 behind an answer that it needs."""


class Goal(NamedTuple):
    """One thing that is asked for."""

    text: str
    calls: tuple[Gold, ...]
    """What solves it; for what cannot be done, what shows that."""
    touches: frozenset[str]
    """What it changes or relies on; goals of one task share none of it."""
    obstacle: str
    """Why it cannot be done; empty if it can."""


@cache
def starts(wanted: Wanted) -> Starts:
    """One walk per settings and process."""

    def begin(seed: int) -> Beginning | None:
        rng = Random(seed)
        world = empty()
        for app in wanted.apps:
            APPS[app].furnish(world, rng, wanted.steps + wanted.distractors)
        return ask(wanted, world, rng)

    settings = ", ".join(f"{name}={value}" for name, value in wanted._asdict().items())
    return Starts(begin, place="env", what=f"tools with {settings}")


def ask(wanted: Wanted, world: World, rng: Random) -> Beginning | None:
    """A request with a solution that works; None where the draws did not fit."""
    is_possible = rng.random() >= wanted.infeasible
    goals = draw(wanted, world, rng, is_possible=is_possible)
    if goals is None:
        return None
    text = " ".join(goal.text for goal in goals)
    obstacle = "".join(goal.obstacle for goal in goals)
    gold = joined(goals if is_possible else [goal for goal in goals if goal.obstacle])
    last = max(one.message for one in gold)
    is_together = is_possible and rng.random() < wanted.together and len(gold) > last + 1
    if is_together:
        text += " Use 2 messages." if last else " Use one message."
    after = tuple(range(len(gold)))
    if obstacle:
        gold.append(Gold(Call("cannot", {"because": obstacle}), after, last + 1))
    elif wanted.ends == "finish":
        gold.append(Gold(Call("finish", {}), after, last))
    if not works(world, gold):
        return None
    data: dict[str, Json] = {
        "world": world,
        "gold": [
            {"name": c.name, "arguments": c.arguments, "after": list(before), "message": message}
            for c, before, message in gold
        ],
        "messages": last + 1 if is_together else None,
        "obstacle": obstacle,
    }
    return Beginning(digest(f"{text}\n{json.dumps(world, sort_keys=True)}"), text, data)


def draw(wanted: Wanted, world: World, rng: Random, *, is_possible: bool) -> list[Goal] | None:
    """Goals that do not touch each other, one of which cannot be reached unless `is_possible`."""
    count = rng.randint(wanted.steps_low, wanted.steps)
    impossible_at = -1 if is_possible else rng.randrange(count)
    goals: list[Goal] = []
    for _ in range(TRIES * count):
        kind = "hidden" if wanted.hidden and rng.random() < 0.5 else "plain"
        if len(goals) == impossible_at:
            kind = "impossible"
        app = rng.choice(wanted.apps)
        fit = [pattern for pattern in patterns()[app] if kind_of(pattern) == kind]
        goal = filled(rng.choice(fit), APPS[app].draw(world, rng)) if fit else None
        if goal is not None and not any(goal.touches & other.touches for other in goals):
            goals.append(goal)
        if len(goals) == count:
            return goals
    return None


@cache
def patterns() -> Mapping[str, Sequence[Pattern]]:
    """The goals of `requests.yaml` by application."""
    import yaml

    found: Mapping[str, Sequence[Pattern]] = yaml.safe_load(
        Path(__file__).with_name("requests.yaml").read_text()
    )
    return found


def kind_of(pattern: Pattern) -> str:
    """Which of `KINDS` a goal is."""
    return KINDS[("look" in pattern) + ("cannot" in pattern)]


def filled(pattern: Pattern, drawn: Mapping[str, str | int]) -> Goal | None:
    """A goal about what was drawn; None if it speaks of something that is not there."""
    looks = [str(pattern["look"])] if "look" in pattern else []
    calls: list[Gold] = []
    try:
        for spelt in [*looks, *pattern.get("calls", ())]:
            is_last = spelt.startswith("then ")
            before = tuple(range(len(calls))) if is_last else (0,) if looks and calls else ()
            call = called(spelt.removeprefix("then "), drawn)
            calls.append(Gold(call, before, int(bool(looks and calls))))
        text = str(pattern["ask"]).format(**drawn)
        touches = frozenset(str(drawn[name]) for name in pattern["touches"])
    except KeyError:
        return None
    return Goal(text, tuple(calls), touches, str(pattern.get("cannot", "")))


def called(spelt: str, drawn: Mapping[str, str | int]) -> Call:
    """The call that `files_move path to=free` spells. Raises `KeyError` for what was not drawn."""
    name, *words = spelt.split()
    pairs = (word.partition("=") for word in words)
    return Call(name, {k: int(v) if v.isdigit() else drawn[v or k] for k, _, v in pairs})


def suggested(apps: Sequence[AppName], world: World) -> Iterator[Call]:
    """Calls that goals in this world would take; the same ones for the same world."""
    rng = Random(json.dumps(world, sort_keys=True))
    for app in apps:
        for pattern in (*patterns()[app], *patterns()[app]):
            goal = filled(pattern, APPS[app].draw(world, rng))
            yield from (one.call for one in (goal.calls if goal else ()))


def joined(goals: Sequence[Goal]) -> list[Gold]:
    """The calls of all goals, one goal after the other; a lookup that comes twice is kept once."""
    calls: list[Gold] = []
    for goal in goals:
        at: list[int] = []
        for one in goal.calls:
            moved = Gold(one.call, tuple(at[i] for i in one.after), one.message)
            if one.after or moved not in calls:
                calls.append(moved)
                at.append(len(calls) - 1)
            else:
                at.append(calls.index(moved))
    return calls


def works(world: World, gold: Sequence[Gold]) -> bool:
    """Whether every call of a solution succeeds, and the state changes unless it says it cannot.

    Both goal by goal and message by message: one goal may spend what another one pays back.
    """
    tools = toolbox(tuple(APPS), can_finish=True)
    by_message = sorted(gold, key=lambda one: one.message)
    ends = []
    for calls in (gold, by_message):
        after = deepcopy(world)
        try:
            for one in calls:
                perform(after, one.call, tools)
        except RefusedError:
            return False
        ends.append(facts(after))
    is_changed = ends[0] != facts(world)
    return ends[0] == ends[1] and is_changed != (gold[-1].call.name == "cannot")
