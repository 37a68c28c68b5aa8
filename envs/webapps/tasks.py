"""Generates worlds, requests and the ways to fulfil them, each from a seed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from random import Random
from typing import Literal, NamedTuple, Protocol, get_args

from agentrl.core.starts import Beginning, Starts, digest
from agentrl.core.types import Json, Task
from agentrl.envs.webapps import calendar, files, mail, settings, shop
from agentrl.envs.webapps.endings import ENDINGS
from agentrl.envs.webapps.errands import Data, Errand, Layout, apply, facts, packed

AppName = Literal["mail", "shop", "calendar", "settings", "files"]
Asked = Literal["errand", "question", "impossible"]
TRIES = 20
"""Errands that are drawn for a place in a request until one fits the others."""
AT_LEAST = 2
"""Steps that the shortest errand takes from the home screen."""


class App(Protocol):
    """What a module that is an application offers."""

    def furnish(self, data: Data, rng: Random, count: int, /) -> None:
        """Put things into its tables, `count` of each kind."""

    def draw(self, data: Data, rng: Random, layout: Layout, /) -> Errand:
        """Something that can be asked for."""
        ...


APPS: Mapping[AppName, App] = dict(
    zip(get_args(AppName), (mail, shop, calendar, settings, files), strict=True)
)


class Wanted(NamedTuple):
    """What decides which tasks there are."""

    apps: tuple[AppName, ...]
    layout: Layout
    steps_low: int
    steps: int
    distractors: int
    asks: tuple[Asked, ...] = ("errand",)


class Request(NamedTuple):
    """A world, what is asked for, and where one stands in the beginning."""

    data: Data
    errands: tuple[Errand, ...]
    stack: list[dict[str, Json]]
    cost: int
    """Steps that the solution takes at most, `done` not among them."""


@cache
def starts(wanted: Wanted) -> Starts:
    """One walk per settings and process."""

    def begin(seed: int) -> Beginning | None:
        request = ask(wanted, Random(seed))
        if request is None:
            return None
        text = " ".join(errand.text for errand in request.errands)
        state: dict[str, Json] = {"data": request.data, "stack": request.stack}
        start = digest(f"{text}\n{json.dumps(state, sort_keys=True)}")
        more: dict[str, Json] = {"errands": packed(request.errands), "cost": request.cost}
        return Beginning(start, text, {**state, **more})

    settings_ = ", ".join(f"{name}={value}" for name, value in wanted._asdict().items())
    return Starts(begin, place="env", what=f"webapps with {settings_}")


def ask(wanted: Wanted, rng: Random) -> Request | None:
    """A request of at most so many steps; None where the draws did not fit.

    One errand that takes more steps begins on its way; further ones begin at the home screen. What
    ends in words comes last.
    """
    data: Data = {}
    for app in wanted.apps:
        APPS[app].furnish(data, rng, wanted.distractors + 2)
    target = rng.randint(wanted.steps_low, wanted.steps)
    asked = wanted.asks[0] if len(wanted.asks) == 1 else rng.choice(wanted.asks)
    app = rng.choice(wanted.apps)
    draw = APPS[app].draw if asked == "errand" else ENDINGS[asked][app]
    first = draw(data, rng, wanted.layout)
    skipped = max(0, first.steps - target)
    errands, cost = [first], first.steps - skipped
    between = wanted.layout == "phone"  # back to the home screen
    for _ in range(TRIES):
        if target - cost < AT_LEAST + between:
            break
        errand = APPS[rng.choice(wanted.apps)].draw(data, rng, wanted.layout)
        fits = all(errand.touches.isdisjoint(other.touches) for other in errands)
        if fits and cost + between + len(errand.ways) <= target:
            errands.append(errand)
            cost += between + len(errand.ways)
    if asked != "errand":
        errands = [*errands[1:], first]
    passed = [change for way in first.ways[:skipped] for change in way.does]
    begun = apply(passed, data)
    after = apply([c for errand in errands for way in errand.ways for c in way.does], data)
    is_same = facts(after) == facts(begun)
    if cost < wanted.steps_low or (asked == "errand" and is_same):
        return None
    return Request(begun, tuple(errands), first.stack(skipped), cost)


def in_hindsight(task: Task, first: Data, now: Data) -> Task | None:
    """The request from the same start that the changes of settings would have fulfilled; None where
    there are none, more than two, or changes of anything else."""
    old, new = first.get("settings", {}), now.get("settings", {})
    where = ((page, name) for page, names in settings.PAGES.items() for name in names)
    errands = [settings.errand(*at, new[at[1]]) for at in where if old and old[at[1]] != new[at[1]]]
    does = [c for one in errands for way in one.ways for c in way.does]
    text = " ".join(one.text for one in errands)
    is_other = 0 < len(errands) <= 2 and text != task.instruction
    if not is_other or facts(apply(does, first)) != facts(now):
        return None
    return task.in_hindsight(digest(text)[:8], text, {"errands": packed(errands)})
