"""Errands of the application `calendar`."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import cast

from agentrl.envs.webapps.errands import Change, Data, Errand, Layout, Way

TITLES = (
    *("yoga", "dentist", "choir", "lunch", "haircut", "meeting", "football", "dinner", "piano"),
    *("library", "interview", "picnic", "swimming", "theatre", "market", "checkup"),
)
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
HOURS = tuple(f"{hour}:00" for hour in range(8, 20))
HOME = {"app": "home"}
WEEK = {"app": "calendar", "screen": "week"}
FORM = {"app": "calendar", "screen": "edit"}


def furnish(data: Data, rng: Random, count: int) -> None:
    """Events with different titles, no two at the same time."""
    times = rng.sample([(day, hour) for day in DAYS for hour in HOURS], min(count, len(TITLES) - 4))
    titles = rng.sample(TITLES, len(times))
    data["events"] = {
        f"e{number}": {"title": title, "day": day, "hour": hour}
        for number, (title, (day, hour)) in enumerate(zip(titles, times, strict=True), 1)
    }


def draw(data: Data, rng: Random, layout: Layout) -> Errand:
    """Plan, move or cancel an event."""
    events = cast("Mapping[str, Mapping[str, str]]", data["events"])
    free = [
        (day, hour)
        for day in DAYS
        for hour in HOURS
        if all((event["day"], event["hour"]) != (day, hour) for event in events.values())
    ]
    kind = rng.choice(("plan", "move", "cancel"))
    day, hour = rng.choice(free)
    if kind == "plan":
        title = rng.choice([t for t in TITLES if all(t != e["title"] for e in events.values())])
        said = {"title": title, "day": day, "hour": hour}
        blank = {"title": "", "day": "mon", "hour": "8:00"}
        ways = [Way(HOME, "click", "Calendar"), Way(WEEK, "click", "New event")]
        ways += _fill(FORM, said, blank, Change("events", None, said))
        return Errand(f"Plan {title} on {day} at {hour}.", frozenset({title}), tuple(ways))
    key = rng.choice(list(events))
    event = events[key]
    title, page = event["title"], {"app": "calendar", "screen": "event", "id": key}
    ways = list(way_to(event, layout))
    if kind == "cancel":
        ways.append(Way(page, "click", "Delete", does=(Change("events", key, None),)))
        return Errand(f"Cancel {title} on {event['day']}.", frozenset({title}), tuple(ways))
    said = {"title": title, "day": day, "hour": hour}
    ways.append(Way(page, "click", "Edit"))
    ways += _fill(FORM | {"id": key}, said, event, Change("events", key, said))
    return Errand(f"Move {title} to {day} at {hour}.", frozenset({title}), tuple(ways))


def way_to(event: Mapping[str, str], layout: Layout) -> tuple[Way, ...]:
    """The way to an event's page: a phone shows a day at a time."""
    home = Way(HOME, "click", "Calendar")
    if layout == "desktop":
        return home, Way(WEEK, "click", event["title"])
    before = DAYS[: DAYS.index(event["day"])]
    swipes = [Way(WEEK | {"day": day}, "swipe", "") for day in before]
    return home, *swipes, Way(WEEK | {"day": event["day"]}, "click", event["title"])


def _fill(
    form: Mapping[str, str], said: Mapping[str, str], shown: Mapping[str, str], change: Change
) -> list[Way]:
    fill = [
        Way(form, "type" if name == "title" else "select", name.title(), {name: value})
        for name, value in said.items()
        if value != shown[name]
    ]
    return [*fill, Way(form, "click", "Save", does=(change,))]
