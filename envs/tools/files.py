"""The application `files`: named texts."""

from __future__ import annotations

from random import Random
from typing import Annotated

from agentrl.envs.tools.toolbox import Record, RefusedError, Tool, World, brief, found

STEMS = ("notes", "list", "report", "draft", "plan", "letter", "recipe", "poem", "map", "song")
ENDINGS = ("txt", "md", "csv")
TEXTS = ("milk", "bread", "done", "later", "red", "blue", "north", "south", "hello", "seven")

Path = Annotated[str, "Name of a file."]


def ls(world: World) -> str:
    """List the names of all files."""
    return " ".join(sorted(world["files"])) or "no files"


def find(world: World, text: Annotated[str, "What the file says, whole."]) -> str:
    """Find the files that say exactly this."""
    return (
        " ".join(sorted(p for p, file in world["files"].items() if file["text"] == text)) or "none"
    )


def read(world: World, path: Path) -> str:
    """Read a file."""
    return str(found(world, "files", path)["text"])


def write(world: World, path: Path, text: Annotated[str, "What it is to say."]) -> str:
    """Write a file; what it said before is lost."""
    world["files"][path] = {"text": text}
    return "written"


def move(world: World, path: Path, to: Annotated[str, "Its new name, which is free."]) -> str:
    """Give a file another name."""
    file = found(world, "files", path)
    if to in world["files"]:
        raise RefusedError(f"expected a free name, but there is a file {brief(to)}")
    del world["files"][path]
    world["files"][to] = file
    return "moved"


def delete(world: World, path: Path) -> str:
    """Delete a file."""
    found(world, "files", path)
    del world["files"][path]
    return "deleted"


TOOLS = tuple(Tool("files", run) for run in (ls, find, read, write, move, delete))


def furnish(world: World, rng: Random, count: int) -> None:
    """Put files there, no two of which say the same."""
    for text in rng.sample(TEXTS, min(count, len(TEXTS) - 2)):
        world["files"][_free(world, rng)] = {"text": text}


def draw(world: World, rng: Random) -> Record:
    """A file, a name that is free, and a word that no file says."""
    said = {file["text"] for file in world["files"].values()}
    drawn: Record = {"free": _free(world, rng)}
    drawn["word"] = rng.choice([text for text in TEXTS if text not in said] or TEXTS)
    if world["files"]:
        path = rng.choice(sorted(world["files"]))
        drawn |= {"path": path, "text": world["files"][path]["text"]}
    return drawn


def _free(world: World, rng: Random) -> str:
    names = [f"{stem}.{ending}" for stem in STEMS for ending in ENDINGS]
    return rng.choice([name for name in names if name not in world["files"]] or ["more.txt"])
