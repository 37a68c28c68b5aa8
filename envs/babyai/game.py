"""minigrid's side of the environment: levels found by name, acted upon, saved and named."""

from __future__ import annotations

import hashlib
import io
import pickle
import re
from functools import cache
from typing import TYPE_CHECKING, cast

from agentrl.core.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from minigrid.core.world_object import WorldObj
    from minigrid.minigrid_env import MiniGridEnv

ACTIONS = ("left", "right", "forward", "pickup", "drop", "toggle")
"""What the agent can say, in the order of minigrid's action numbers."""

NO_OP = 6
"""minigrid's `done`, which no offered level reacts to: stands for an unknown action in the log."""

UNPLAYABLE = re.compile(r"MiniGrid-(GoToDoor|GoToObject|Playground|WFC)")
"""Levels that need the action `done`, have no goal, or need further packages."""


@cache
def playable() -> tuple[str, ...]:
    """The gymnasium ids of all levels that can be played here, sorted."""
    import gymnasium  # half a second: not before a level is asked for
    import minigrid  # noqa: F401 - registers its levels

    families = ("MiniGrid-", "BabyAI-")
    ids = (i for i in gymnasium.registry if i.startswith(families) and not UNPLAYABLE.match(i))
    return tuple(sorted(ids))


@cache
def levels() -> dict[str, str]:
    """Short name -> gymnasium id; BabyAI before MiniGrid, the newest version of each."""
    found: dict[str, str] = {}
    for family in ("MiniGrid-", "BabyAI-"):
        ids = [i for i in playable() if i.startswith(family)]
        found |= {i.removeprefix(family).rsplit("-v", 1)[0]: i for i in ids}
    return found


def level_id(level: str) -> str:
    """The gymnasium id of a short name (or of itself). Raises `ConfigError`."""
    known = levels()
    if level in playable():
        return level
    if level not in known:
        raise ConfigError(
            f"env.level: no level is called {level!r}{did_you_mean(level, known)} "
            "(a BabyAI or MiniGrid level without prefix and version, as in GoToObj or DoorKey-6x6)"
        )
    return known[level]


def make(gym_id: str) -> MiniGridEnv:
    """A fresh game that doesn't chatter on standard output."""
    import gymnasium
    from minigrid.envs.babyai.core import roomgrid_level

    # It reports rejected samples with print; redirecting stdout would silence other threads too.
    vars(roomgrid_level)["print"] = lambda *_: None
    return cast("MiniGridEnv", gymnasium.make(gym_id, disable_env_checker=True).unwrapped)


def actions(game: MiniGridEnv) -> tuple[str, ...]:
    """The actions that this level knows (Dynamic-Obstacles only moves)."""
    return ACTIONS[: int(game.action_space.n)]  # type: ignore[attr-defined]


def act(game: MiniGridEnv, number: int) -> tuple[float, bool]:
    """Reward and whether the level ended; `NO_OP` lets a step pass."""
    if number == NO_OP:
        game.step_count += 1
        return 0.0, False
    _, reward, terminated, _, _ = game.step(number)
    return float(reward), bool(terminated)


def can_toggle(game: MiniGridEnv, front: WorldObj) -> bool:
    """Whether toggling the thing in front changes it: a box, or a door that isn't locked for us."""
    if front.type == "box":
        return True
    held = cast("WorldObj | None", game.carrying)
    has_key = held is not None and held.type == "key" and held.color == front.color
    return front.type == "door" and (has_key or not front.is_locked)  # type: ignore[attr-defined]


KEPT_ACROSS_STATES = frozenset(
    {
        "action_space",
        "actions",
        "clock",
        "observation_space",
        "render_mode",
        "reward_range",
        "spec",
        "window",
    }
)
"""Attributes of a game that no episode changes: not worth saving, or impossible to."""


class _Pickler(pickle.Pickler):
    """Writes the game itself as a mark, so that its instructions find the restored one."""

    def __init__(self, file: io.BytesIO, game: MiniGridEnv) -> None:
        super().__init__(file, pickle.HIGHEST_PROTOCOL)
        self._game = game

    def persistent_id(self, obj: object) -> str | None:
        return "game" if obj is self._game else None


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, game: MiniGridEnv) -> None:
        super().__init__(file)
        self._game = game

    def persistent_load(self, pid: str) -> MiniGridEnv:
        return self._game


def save(game: MiniGridEnv) -> bytes:
    """All that an episode can change, in memory only."""
    file = io.BytesIO()
    state = {k: v for k, v in vars(game).items() if k not in KEPT_ACROSS_STATES}
    _Pickler(file, game).dump(state)
    return file.getvalue()


def load(game: MiniGridEnv, saved: bytes) -> None:
    """What `save` wrote, into a game of the same level."""
    vars(game).update(_Unpickler(io.BytesIO(saved), game).load())


def key(game: MiniGridEnv) -> str:
    """SHA-256 of everything but random numbers and the step count, 32 hex digits."""
    cells = [code(cell) for cell in game.grid.grid]
    agent = (*map(int, game.agent_pos), int(game.agent_dir))
    state = (
        game.mission,
        progress(getattr(game, "instrs", None)),
        cells,
        agent,
        code(game.carrying),
    )
    return hashlib.sha256(repr(state).encode()).hexdigest()[:32]


def code(cell: WorldObj | None) -> tuple[object, ...]:
    """Type, colour and state as numbers, and what a box holds."""
    if cell is None:
        return ()
    held = (code(cell.contains),) if cell.contains is not None else ()
    return (*cell.encode(), *held)


def progress(instruction: object) -> tuple[object, ...]:
    """Which halves of a composed instruction are done."""
    if not hasattr(instruction, "instr_a"):
        return ()
    done = [getattr(instruction, name, None) == "success" for name in ("a_done", "b_done")]
    parts = (getattr(instruction, name) for name in ("instr_a", "instr_b"))
    return (*done, *map(progress, parts))
