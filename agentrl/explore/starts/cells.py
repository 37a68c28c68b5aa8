"""What an archive knows of a task, for those who begin in it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from agentrl.core.errors import ConfigError
from agentrl.core.graph import StateGraph
from agentrl.core.types import Action, Start
from agentrl.explore.archive import Archive
from agentrl.explore.visits import ways_to_success

FILE = "archive.sqlite"


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """A task that was explored."""

    way: tuple[Action, ...]
    """The way to a success that was really taken in one go; empty where there is none."""
    graph: StateGraph


def read_archive(path: Path) -> dict[str, Known]:
    """Every task of an archive, by its id. Raises `ConfigError` where there is none."""
    if not path.exists():
        raise ConfigError(
            f"start: there is no archive at {path}; set explore=go_explore, or start.archive to "
            f"the {FILE} of another run"
        )
    found = {}
    with Archive(path) as archive:
        for task in archive.tasks():
            graph = archive.load(task)
            if graph is not None:
                ways = ways_to_success(graph)
                found[task] = Known(way=ways[-1] if ways else (), graph=graph)
    return found


def after(way: tuple[Action, ...], count: int) -> Start:
    """Where a way is after so many of its actions; a reset after none."""
    return Start(cell=f"{count} of {len(way)}", actions=way[:count]) if count > 0 else Start()
