"""What the agent is shown: its own 7x7 view, in words or as a picture."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from agentrl.core.errors import MissingExtraError
from agentrl.core.types import Image

if TYPE_CHECKING:
    from minigrid.core.world_object import WorldObj
    from minigrid.minigrid_env import MiniGridEnv


class View(NamedTuple):
    """One cell of the agent's view: what is there, and how far forward and to the right it is."""

    thing: str
    forward: int
    right: int


def describe(game: MiniGridEnv) -> str:
    """The agent's view in words: load, cell in front, wall ahead, then things by distance."""
    views = list(look(game))
    front = next((v.thing for v in views if (v.forward, v.right) == (1, 0)), "free")
    words = [f"carry {name(game.carrying)}"] if game.carrying is not None else []
    words.append(f"front {front}")
    walls = [v.forward for v in views if v.thing == "wall" and v.right == 0 and v.forward > 1]
    if walls:
        words.append(f"wall {min(walls)}")
    things = sorted(
        (v for v in views if v.thing != "wall" and (v.forward, v.right) != (1, 0)),
        key=lambda v: (v.forward + abs(v.right), v.forward, v.right),
    )
    words.append("see " + (" , ".join(map(place, things)) or "nothing"))
    return " ".join(words)


def look(game: MiniGridEnv) -> Iterator[View]:
    """What stands in the visible cells, floor and the agent's own cell left out."""
    grid, visible = game.gen_obs_grid()  # type: ignore[no-untyped-call]
    side, near = grid.width // 2, grid.height - 1
    for index, cell in enumerate(grid.grid):
        column, row = index % grid.width, index // grid.width
        if cell is None or cell.type == "floor" or not visible[column, row]:
            continue
        if (column, row) != (side, near):
            yield View(name(cell), near - row, column - side)


def name(cell: WorldObj) -> str:
    """`wall`, `red ball`, `blue door locked`."""
    if cell.type == "wall":
        return "wall"
    words = f"{cell.color} {cell.type}"
    if cell.type != "door":
        return words
    return f"{words} {('open', 'closed', 'locked')[cell.encode()[2]]}"


def place(view: View) -> str:
    """`red ball 2 forward 1 left`."""
    words = [view.thing]
    if view.forward:
        words.append(f"{view.forward} forward")
    if view.right:
        words.append(f"{abs(view.right)} {'left' if view.right < 0 else 'right'}")
    return " ".join(words)


def picture(game: MiniGridEnv, tile_pixels: int) -> Image:
    """The agent's view as a PNG, the agent at the lower edge looking up."""
    try:
        from PIL import Image as Pillow
    except ImportError as error:
        raise MissingExtraError("pillow", "gui") from error
    file = io.BytesIO()
    pixels = game.get_pov_render(tile_pixels)  # type: ignore[no-untyped-call]
    Pillow.fromarray(pixels).save(file, format="PNG")
    return Image(file.getvalue())
