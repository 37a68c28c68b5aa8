"""Conditions that `check` knows, on the whole grid and not only on the agent's view.

at 3 4               the agent stands in column 3, row 4 (0 0 is the corner above, left)
touched 3 4          it does, or something else is there now than at the start of the level
front red key        the thing that it faces
carrying red key     or `carrying nothing`
open red door        or `locked`, `closed`: some door of that colour
reached goal         it stands on MiniGrid's goal
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, cast

from agentrl.envs.babyai.game import code, make

if TYPE_CHECKING:
    from minigrid.core.world_object import WorldObj
    from minigrid.minigrid_env import MiniGridEnv

COLOURS = "red|green|blue|purple|yellow|grey"
THING = rf"(?:(?P<colour>{COLOURS}) )?(?P<thing>key|ball|box|door)"
PLACE = re.compile(r"(?P<what>at|touched) (?P<x>\d{1,3}) (?P<y>\d{1,3})")
FRONT = re.compile(rf"front {THING}")
CARRYING = re.compile(rf"carrying (?:{THING}|nothing)")
DOOR = re.compile(rf"(?P<state>open|closed|locked) (?:(?P<colour>{COLOURS}) )?door")
STATES = ("open", "closed", "locked")


def holds(game: MiniGridEnv, seed: int, gym_id: str, goal: str) -> bool | None:
    """Whether a condition holds; None for what is none, or names a cell outside of the grid."""
    goal = " ".join(goal.lower().split()) if len(goal) <= 100 else ""
    if found := PLACE.fullmatch(goal):
        return _place(game, seed, gym_id, found["what"], int(found["x"]), int(found["y"]))
    if found := FRONT.fullmatch(goal):
        return _is(game.grid.get(*game.front_pos), found["thing"], found["colour"])
    if found := CARRYING.fullmatch(goal):
        held = cast("WorldObj | None", game.carrying)
        return (
            held is None if found["thing"] is None else _is(held, found["thing"], found["colour"])
        )
    if found := DOOR.fullmatch(goal):
        doors = [c for c in game.grid.grid if _is(c, "door", found["colour"])]
        wanted = STATES.index(found["state"])
        return any(cast("WorldObj", door).encode()[2] == wanted for door in doors)
    if goal == "reached goal":
        return _is(game.grid.get(*game.agent_pos), "goal", None)
    return None


def _place(game: MiniGridEnv, seed: int, gym_id: str, what: str, x: int, y: int) -> bool | None:
    if x >= game.width or y >= game.height:
        return None
    if tuple(map(int, game.agent_pos)) == (x, y):
        return True
    if what == "at":
        return False
    return code(game.grid.get(x, y)) != first_codes(gym_id, seed)[y * game.width + x]


@lru_cache(maxsize=512)
def first_codes(gym_id: str, seed: int) -> tuple[tuple[object, ...], ...]:
    """What stood in each cell when the level began."""
    game = make(gym_id)
    game.reset(seed=seed)
    return tuple(code(cell) for cell in game.grid.grid)


def _is(cell: WorldObj | None, thing: str, colour: str | None) -> bool:
    return cell is not None and cell.type == thing and colour in (None, cell.color)
