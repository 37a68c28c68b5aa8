"""The application `calendar`: events of one hour, on the days of a week."""

from __future__ import annotations

from random import Random
from typing import Annotated, Literal

from agentrl.envs.tools.toolbox import Record, RefusedError, Tool, World, brief, found, new

DAYS = ("mon", "tue", "wed", "thu", "fri")
HOURS = range(8, 18)
TITLES = ("dentist", "lunch", "yoga", "call", "review", "party", "class", "game", "opera", "visit")

Day = Annotated[Literal["mon", "tue", "wed", "thu", "fri"], "A day."]
Hour = Annotated[int, "When it begins, 8 to 17."]
Name = Annotated[str, "The id of an event, as calendar_show gives it."]


def show(world: World, day: Day) -> str:
    """List the events of a day: id, title and hour of each."""
    there = [(e["hour"], key, e["title"]) for key, e in world["events"].items() if e["day"] == day]
    return (
        ", ".join(f"{key} {title} at {hour}" for hour, key, title in sorted(there)) or "no events"
    )


def add(world: World, title: Annotated[str, "What it is."], day: Day, hour: Hour) -> str:
    """Add an event at an hour that is free."""
    _must_be_free(world, day, hour)
    return f"added as {new(world, 'events', {'title': title, 'day': day, 'hour': hour})}"


def move(world: World, event: Name, day: Day, hour: Hour) -> str:
    """Move an event to an hour that is free."""
    moved = found(world, "events", event)
    _must_be_free(world, day, hour)
    moved.update(day=day, hour=hour)
    return "moved"


def cancel(world: World, event: Name) -> str:
    """Cancel an event."""
    found(world, "events", event)
    del world["events"][event]
    return "cancelled"


TOOLS = tuple(Tool("calendar", run) for run in (show, add, move, cancel))


def furnish(world: World, rng: Random, count: int) -> None:
    """Put events there, each with a title and an hour of its own."""
    titles = rng.sample(TITLES, min(count, len(TITLES) - 2))
    for number, title in zip(rng.sample(range(11, 100), len(titles)), titles, strict=True):
        day, hour = rng.choice(_free(world))
        world["events"][f"e{number}"] = {"title": title, "day": day, "hour": hour}


def draw(world: World, rng: Random) -> Record:
    """An event, an hour that is free, and a title that none has."""
    titles = {event["title"] for event in world["events"].values()}
    drawn: Record = {"absent": rng.choice([t for t in TITLES if t not in titles] or ["nap"])}
    if _free(world):
        day, hour = rng.choice(_free(world))
        drawn |= {"free_day": day, "free_hour": hour, "slot": f"{day} {hour}"}
    if world["events"]:
        event = rng.choice(sorted(world["events"]))
        drawn |= {"event": event, **world["events"][event]}
    return drawn


def _must_be_free(world: World, day: str, hour: int) -> None:
    if hour not in HOURS:
        raise RefusedError(f"expected an hour from {HOURS[0]} to {HOURS[-1]}, got {hour}")
    for event in world["events"].values():
        if (event["day"], event["hour"]) == (day, hour):
            raise RefusedError(f"expected a free hour, but then is {brief(event['title'])}")


def _free(world: World) -> list[tuple[str, int]]:
    taken = {(event["day"], event["hour"]) for event in world["events"].values()}
    return [(day, hour) for day in DAYS for hour in HOURS if (day, hour) not in taken]
