"""All applications as one: their tools by name, what matters of the state, how a call is made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from random import Random
from typing import Annotated, Literal, Protocol

from agentrl.core.errors import did_you_mean
from agentrl.envs.tools import calendar, files, mail, shop
from agentrl.envs.tools.toolbox import TABLES, Record, Tool, World, WrongCallError, brief
from agentrl.text.calls import Call

AppName = Literal["files", "calendar", "mail", "shop"]


class App(Protocol):
    """What a module that is an application offers."""

    TOOLS: tuple[Tool, ...]

    def furnish(self, world: World, rng: Random, count: int, /) -> None:
        """Put `count` things of each kind into the world."""

    def draw(self, world: World, rng: Random, /) -> Record:
        """Things that requests may speak of, by the names that `requests.yaml` has for them."""
        ...


APPS: Mapping[AppName, App] = {
    "files": files,
    "calendar": calendar,
    "mail": mail,
    "shop": shop,
}
KEYED = ("files", "cart", "purse")
"""Tables whose keys matter; the others' are ids."""
UNCHANGING = ("people", "goods")
"""Tables that do not matter: nobody changes them, or they follow from the others."""


def finish(world: World) -> str:
    """Say that all that was asked for is done."""
    return "finished"


def cannot(
    world: World,
    because: Annotated[
        Literal["missing", "taken", "too_few"],
        "missing: something does not exist; taken: an hour is not free; too_few: there is not "
        "enough of something.",
    ],
) -> str:
    """Say that the request cannot be fulfilled. Nothing may have been changed then."""
    return "noted"


FINISH, CANNOT = Tool("", finish), Tool("", cannot)


def empty() -> World:
    """A world with nothing in it."""
    return {table: {} for table in TABLES}


def toolbox(apps: tuple[AppName, ...], *, can_finish: bool) -> dict[str, Tool]:
    """The tools of some applications by name, and those that end an episode."""
    tools = [tool for app in apps for tool in APPS[app].TOOLS]
    tools += [FINISH, CANNOT] if can_finish else [CANNOT]
    return {tool.name: tool for tool in tools}


def perform(world: World, one: Call, tools: Mapping[str, Tool]) -> str:
    """Make a call, which may change the world; the answer.

    Raises:
        WrongCallError: no tool takes it.
        RefusedError: the tool cannot do it; the world is as it was.
    """
    tool = tools.get(one.name)
    if tool is None:
        near = did_you_mean(one.name, tools)
        raise WrongCallError(
            f"expected one of the tools {', '.join(tools)}, got {brief(one.name)}{near}"
        )
    tool.check(one.arguments)
    return tool.run(world, **one.arguments)


def facts(world: World) -> Counter[str]:
    """What matters of the state, and how often it holds: `files a.txt text=milk`."""
    return Counter(
        " ".join(
            [
                table,
                *([key] if table in KEYED else []),
                *(f"{k}={v}" for k, v in sorted(record.items())),
            ]
        )
        for table, records in world.items()
        if table not in UNCHANGING
        for key, record in records.items()
    )
