"""All that is asked of the package `textworld`: make a game, compile it, open it.

Two things that it does again for every game are spared. It reads its rules anew, and, to learn
which actions a walkthrough consists of, it compiles the game and plays that; here the same is
played in its own engine for games that are not compiled, which takes a hundredth of the time. The
games are the same (`tests/envs/test_textworld.py` compares them).
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from agentrl.core.errors import MissingExtraError
from agentrl.core.starts import digest
from agentrl.core.types import Json

CHALLENGES = {
    "coin": "tw_coin_collector.coin_collector",
    "treasure": "tw_treasure_hunter.treasure_hunter",
    "cooking": "tw_cooking.cooking",
}
ASKED = (
    *("admissible_commands", "policy_commands", "facts", "objective", "won", "lost"),
    *("score", "max_score", "last_action"),
)
"""What the package is asked to tell after each command."""

State = Mapping[str, Any]
"""What the package knows after a command, by the names of `ASKED` and more."""


class Made(NamedTuple):
    """What is known of a game without opening it."""

    world: str
    """Names what is where, without what it is called: a digest."""
    start: str
    """Names what is where, what all is called, and what is asked for: a digest."""
    turns: int
    """Commands of the game's own walkthrough."""


def module(name: str) -> ModuleType:
    """A module of the package. Raises `MissingExtraError` if it is not installed."""
    try:
        return importlib.import_module(f"textworld{name}")
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "textworld", "textworld") from error


def version() -> str:
    """The package's version: another one may make other games of a seed."""
    return str(module("").__version__)


# --- making: in a process of its own (maker.py) ---------------------------------------------------


@cache
def quick() -> None:
    """Let this process make games without reading rules and compiling again and again."""
    package: Any = module("")
    knowledge = module(".generator.data").KnowledgeBase
    load = cache(knowledge.load)

    class Maker(package.GameMaker):  # type: ignore[misc]
        """Writes what is to be tried as JSON, which the package's own engine plays."""

        def compile(self, path: str) -> str:
            """Save the game beside `path`, and return where."""
            place = str(Path(path).with_suffix(".json"))
            self.build().save(place)
            return place

    package.GameMaker = Maker
    knowledge.load = load


def make(settings: Mapping[str, Json], seed: int, place: Path) -> Made | None:
    """Make a seed's game and save it as JSON; None where the seed makes none."""
    generator = module(".generator")
    chosen = dict(settings)
    challenge = module(f".challenges.{CHALLENGES[str(chosen.pop('game'))]}")
    options = module("").GameOptions()
    options.seeds = seed
    options.grammar.only_last_action = chosen.pop("objective") == "last"
    try:
        game = challenge.make(chosen, options)
    except generator.QuestGenerationError:
        return None
    facts = sorted(map(str, game.world.facts))
    called = sorted((key, str(info.name), str(info.adj)) for key, info in game.infos.items())
    goals = [sorted(map(str, event.condition.preconditions)) for event in _events(game)]
    world = digest(json.dumps([facts, goals]))
    game.save(str(place))
    return Made(
        world, digest(json.dumps([world, called, game.objective])), len(game.walkthrough or ())
    )


def _events(game: Any) -> list[Any]:
    return [event for quest in game.quests for event in quest.win_events]


def compile_game(place: Path, target: Path) -> None:
    """Compile a saved game to the story file `target`, in a folder that nobody else writes to."""
    game = module("").Game.load(str(place))
    options = module("").GameOptions()
    options.path = str(target)
    options.force_recompile = True
    module(".generator").compile_game(game, options)
    for left in (target.with_suffix(".ni"), target.with_suffix(".json")):
        with suppress(FileNotFoundError):
            left.unlink()


# --- playing --------------------------------------------------------------------------------------


def opened(place: Path) -> Any:
    """A saved (`.json`) or compiled (`.z8`, its JSON beside it) game in the package's engine."""
    return module("").start(str(place), module("").EnvInfos(**dict.fromkeys(ASKED, True)))
