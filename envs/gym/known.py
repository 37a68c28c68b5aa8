"""What is known of Gymnasium's own text games: names of actions, what success is, words to show.

An env that is not listed here is played by its numbers, and by the settings of `env.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import numpy as np

from agentrl.core.types import Json, Split
from agentrl.envs.gym.table import Rule

if TYPE_CHECKING:
    import gymnasium
    from gymnasium.envs.toy_text.frozen_lake import FrozenLakeEnv
    from gymnasium.envs.toy_text.taxi import TaxiEnv

    Game = gymnasium.Env[object, object]

LENGTHS: Mapping[Split, int] = {"train": 2_000, "dev": 200, "test": 400}
"""Tasks of an env that begins differently from each seed."""


@dataclass(frozen=True, kw_only=True)
class Known:
    """One env: what to say instead of numbers, and when it is won."""

    actions: tuple[str, ...] = ()
    goal: str = ""
    """What the first observation says ahead of all."""
    kwargs: Mapping[str, Json] = field(default_factory=dict)
    """Arguments of the constructor where the config gives none."""
    success: Rule | None = None
    """None: `return` where the env's spec has a reward threshold, else `last_reward`."""
    show: Callable[[Game, object], str] | None = None
    """The state in words."""
    has_maps: bool = False
    """Each task has a random map, unless the arguments name one."""
    lengths: Mapping[Split, int] = field(default_factory=lambda: LENGTHS)


def _frozen_lake(game: Game, observation: object) -> str:
    """The map, one row a line, with `@` where the agent stands."""
    lake = cast("FrozenLakeEnv", game.unwrapped)
    tiles = list(np.asarray(lake.desc).tobytes().decode())
    tiles[int(cast("int", observation))] = "@"
    rows = [tiles[i : i + lake.ncol] for i in range(0, len(tiles), lake.ncol)]
    return "\n".join(" ".join(row) for row in rows)


def _taxi(game: Game, observation: object) -> str:
    """Rows and columns of taxi, passenger and goal, and where the taxi can move."""
    taxi = cast("TaxiEnv", game.unwrapped)
    state = int(cast("int", observation))
    row, column, passenger, goal = taxi.decode(state)
    places = [f"{r} {c}" for r, c in taxi.locs]
    waits = "aboard" if passenger == len(places) else f"at {places[passenger]}"
    mask = taxi.action_mask(state)
    free = [name for name, is_free in zip(TAXI[:4], mask[:4], strict=True) if is_free]
    return f"taxi {row} {column} passenger {waits} goal {places[goal]} free {' '.join(free)}"


def _blackjack(game: Game, observation: object) -> str:
    total, dealer, ace = cast("tuple[int, int, int]", observation)
    return f"you {int(total)} dealer {int(dealer)}{' usable ace' if ace else ''}"


TAXI = ("south", "north", "east", "west", "pickup", "dropoff")
CLIFF = ("up", "right", "down", "left")

KNOWN: Mapping[str, Known] = {
    "FrozenLake": Known(
        actions=("left", "down", "right", "up"),
        goal="walk to G past the holes H",
        kwargs={"is_slippery": False},
        success="last_reward",
        show=_frozen_lake,
        has_maps=True,
        lengths={"train": 500, "dev": 150, "test": 150},
    ),
    "FrozenLake8x8": Known(
        actions=("left", "down", "right", "up"),
        goal="walk to G past the holes H",
        kwargs={"is_slippery": False},
        success="last_reward",
        show=_frozen_lake,
    ),
    "Taxi": Known(
        actions=TAXI,
        goal="fetch the passenger and take him to the goal",
        success="last_reward",
        show=_taxi,
        lengths={"train": 140, "dev": 60, "test": 60},
    ),
    "CliffWalking": Known(actions=CLIFF, success="terminated"),
    "CliffWalkingSlippery": Known(actions=CLIFF, success="terminated"),
    "Blackjack": Known(
        actions=("stick", "hit"), goal="21 wins", success="last_reward", show=_blackjack,
        lengths={"train": 100, "dev": 30, "test": 30},
    ),
    "CartPole": Known(actions=("left", "right")),
    "MountainCar": Known(actions=("left", "stay", "right"), success="terminated"),
    "Acrobot": Known(success="terminated"),
}  # fmt: skip
"""By id without version."""

_ESCAPE = re.compile(r"\x1b\[([0-9;]*)m")
_COLOURS = ("black", "red", "green", "yellow", "blue", "magenta", "cyan", "white")


def uncoloured(text: str) -> str:
    """ANSI colours as text: `<blue B>`, and `<on yellow _>` for a background (a space as `_`)."""
    plain, colours = "", list[str]()
    for i, part in enumerate(_ESCAPE.split(text)):
        if i % 2 == 0:
            plain += f"<{' '.join(colours)} {part.replace(' ', '_')}>" if colours and part else part
            continue
        for code in (int(code or 0) for code in part.split(";")):
            if code == 0:
                colours.clear()
            elif 30 <= code <= 37:
                colours.append(_COLOURS[code - 30])
            elif 40 <= code <= 47:
                colours.append(f"on {_COLOURS[code - 40]}")
    return plain.strip("\n")


def known(gym_id: str) -> Known:
    """What is known of an id; of one that isn't listed, that each seed begins differently."""
    return KNOWN.get(gym_id.rsplit("-v", 1)[0], Known())
