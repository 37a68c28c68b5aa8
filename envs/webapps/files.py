"""Errands of the application `files`."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import cast

from agentrl.core.types import Json
from agentrl.envs.webapps.errands import Change, Data, Errand, Layout, Way

FOLDERS = ("Documents", "Downloads", "Music", "Pictures")
STEMS = ("notes", "plan", "recipe", "letter", "budget", "song", "holiday", "garden", "poem", "map")
ENDS = ("txt", "pdf", "mp3", "jpg")
HOME = {"app": "home"}
LIST = {"app": "files", "screen": "list"}


def furnish(data: Data, rng: Random, count: int) -> None:
    """Files with different names, in any folder."""
    names = rng.sample([f"{stem}.{end}" for stem in STEMS for end in ENDS], count)
    data["files"] = {
        f"f{number}": {"name": name, "folder": rng.choice(FOLDERS)}
        for number, name in enumerate(names, 1)
    }


def draw(data: Data, rng: Random, layout: Layout) -> Errand:
    """Rename, move, copy or delete a file."""
    files = cast("Mapping[str, Mapping[str, str]]", data["files"])
    key = rng.choice(list(files))
    name, folder = files[key]["name"], files[key]["folder"]
    home, row, where = way_to(folder)
    kind = rng.choice(("rename", "move", "copy", "delete"))
    ways = (home, row, Way(where, "hold" if layout == "phone" else "right", name))
    label, act = f"{name} in {folder}", Way(where | {"menu": key}, "click", kind.title())
    if kind in ("copy", "delete"):
        change = Change("files", None, files[key]) if kind == "copy" else Change("files", key, None)
        last = act._replace(does=(change,))
        return Errand(f"{kind.title()} {label}.", frozenset({key}), (*ways, last))
    form = {"app": "files", "screen": kind, "id": key}
    if kind == "rename":
        taken = {file["name"] for file in files.values()}
        new = rng.choice([f"{s}.{e}" for s in STEMS for e in ENDS if f"{s}.{e}" not in taken])
        said, fill, save = {"name": new}, Way(form, "type", "Name", {"name": new}), "Save"
        text = f"Rename {label} to {new}."
    else:
        new = rng.choice([other for other in FOLDERS if other != folder])
        said, save = {"folder": new}, "Move here"
        fill = Way(form, "select", "Folder", said)
        text = f"Move {label} to {new}."
    last = Way(form, "click", save, does=(Change("files", key, said),))
    return Errand(text, frozenset({key, new}), (*ways, act, fill, last))


def way_to(folder: str) -> tuple[Way, Way, dict[str, Json]]:
    """The way to a folder, and the frame that is reached."""
    frame: dict[str, Json] = {"app": "files", "screen": "folder", "id": folder}
    return Way(HOME, "click", "Files"), Way(LIST, "click", folder), frame
