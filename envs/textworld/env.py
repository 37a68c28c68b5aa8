"""TextWorld: games in prose that the package makes from seeds.

    Your objective is to retrieve the coin from the floor of the studio.

    -= Shower =-
    You arrive in a shower. A standard kind of place.
    You need an unguarded exit? You should try going east.
    > go east

Three kinds (Côté et al. 2018, arXiv 1806.11532; `pip install 'agentrl[textworld]'`, version 1.7.0):
`coin` (find a coin in a maze), `treasure` (find one thing, not another, behind doors and in chests)
and `cooking` (read a recipe, find what it takes, treat it so, cook, eat), which has the package's
own splits. Games are made and compiled when they are first needed, about a second each, and kept.

    agentrl eval CHECKPOINT env=textworld env.level=220 env.turns=25 rollout.max_turns=25

are coin games as Intelligent Go-Explore plays them (Lu et al. 2024, arXiv 2405.15143): sixty rooms,
twenty commands on the shortest way, twenty-five in all. Their own 25 files are of a format that
this version does not read.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

from annotated_types import Ge, Gt, Le

from agentrl.core.errors import ConfigError, EnvError
from agentrl.core.protocols import Env, RunsIn
from agentrl.core.registry import register
from agentrl.core.starts import Tasks, digest
from agentrl.core.types import Action, Json, Split, Step, Task
from agentrl.envs.textworld.games import (
    PACKAGE_SPLITS,
    Source,
    default_cache,
    package_starts,
    starts,
    story,
)
from agentrl.envs.textworld.package import State, opened
from agentrl.envs.textworld.plain import Scene, look

DEFAULT_LEVEL = 5
ROWS = range(3, 101)
"""Rooms on the way to the coin: with fewer there are too few mazes to split."""
MOST_ROOMS = 100
"""More of them do not fit into a story file."""
COMMAND = re.compile(r"[a-z0-9' -]{1,100}")
FORBIDDEN = re.compile(
    r"(?:quit|q|restart|restore|save|undo|script|transcript|unscript|verify|version|again|g|oops"
    r"|notify|pronouns|superbrief|brief|verbose|yes|no|y|tw-.*|then)"
)
"""Words that speak to the story's interpreter, undo a command, or join several."""
READ = "examine cookbook"
NO = "you can't do that"

_OPENING = threading.Lock()
"""The package reads every game with one parser."""


class Saved(NamedTuple):
    """A snapshot: what was done since the reset, and what came of it."""

    seed: int
    split: str
    commands: tuple[str, ...]
    turns: int
    """Limit of turns."""
    is_over: bool
    key: str


NOTHING = Saved(0, "", (), 0, True, "")


@register("env", "textworld")
@dataclass(kw_only=True)
class TextWorld(Env):
    """Text adventures made by TextWorld: find a coin or a treasure in a maze, or cook a meal."""

    runs_in: ClassVar[RunsIn] = "thread"
    extra: ClassVar[str] = "textworld"
    licence: ClassVar[str] = "MIT (TextWorld); the interpreter of compiled games, jericho, GPL-2.0"
    cite: ClassVar[str] = "Côté et al. 2018 (TextWorld), arXiv 1806.11532"
    timeout_s: ClassVar[float] = 240.0  # several resets may wait for their games to be compiled

    game: Literal["coin", "treasure", "cooking"] = "coin"
    """Which kind of game."""
    level: Annotated[int, Ge(1), Le(300)] | None = None
    """How hard, as the package counts. Coin: 3 to 100 are mazes of as many rooms in a row, 103 to
    150 of 3 to 50 rooms with a dead end beside each, 203 to 233 with two (three rooms at least, or
    there are too few mazes to split; 100 at most). Treasure: 1 to 30, from about 25 on a game takes
    minutes to make. `none` is 5."""
    objective: Literal["last", "full"] = "last"
    """What the game says at first: `last` what is to be found, `full` every command of the way as
    well. (Cooking has one text.)"""
    recipe: Annotated[int, Ge(1), Le(5)] = 1
    """Cooking: ingredients of the recipe."""
    take: Annotated[int, Ge(0), Le(5)] = 1
    """Cooking: ingredients that must be found."""
    go: Literal[1, 6, 9, 12] = 1
    """Cooking: rooms."""
    open: bool = False
    """Cooking: doors and containers are closed."""
    cook: bool = False
    """Cooking: ingredients must be fried, roasted or grilled."""
    cut: bool = False
    """Cooking: ingredients must be chopped, sliced or diced."""
    drop: bool = False
    """Cooking: no more can be carried than is needed."""
    prose: Literal["compiled", "plain"] = "compiled"
    """The game's own prose, from its compiled story, or its facts in a few words (`plain.py`),
    which costs a tenth of the time and is understood by small models."""
    reward: Literal["success", "score"] = "success"
    """1 for winning, or the share of the game's points as they are won (cooking gives several)."""
    turns: Annotated[int, Ge(1)] | None = None
    """Turns until truncation; `none` is three times the game's own walkthrough, 10 at least."""
    cache: Path | None = None
    """Where games are kept, for all runs; `none` is `agentrl/textworld` in $XDG_CACHE_HOME, or in
    `~/.cache`."""
    make_s: Annotated[float, Gt(0)] = 60.0
    """Seconds after which a game that is being made or compiled is given up. Seeds whose games
    take longer are left out, so where there are any the tasks depend on the machine."""
    train_tasks: Annotated[int, Ge(1)] = 200
    """Length of the train split; each task is another start."""
    dev_tasks: Annotated[int, Ge(1)] = 50
    """Length of the dev split."""
    test_tasks: Annotated[int, Ge(1)] = 100
    """Length of the test split."""

    def __post_init__(self) -> None:
        level = DEFAULT_LEVEL if self.level is None else self.level
        if self.game == "cooking" and self.level is not None:
            raise ConfigError(
                f"env.level: cooking has no levels, got {self.level}: set env.recipe, env.take, "
                "env.go, env.open, env.cook, env.cut, env.drop"
            )
        if self.game == "treasure" and level > 30:
            raise ConfigError(f"env.level: treasure has levels 1 to 30, got {level}")
        beside, row = (level - 1) // 100, (level - 1) % 100 + 1
        if self.game == "coin" and (row not in ROWS or (beside + 1) * row > MOST_ROOMS):
            raise ConfigError(
                f"env.level: coin has levels 3 to 100, 103 to 150 and 203 to 233, got {level}"
            )
        if self.game == "cooking" and self.take > self.recipe:
            raise ConfigError(
                f"env.take: expected at most env.recipe={self.recipe} ingredients, got {self.take}"
            )
        if self.prose == "plain":  # pure Python, less than a millisecond a command
            self.__dict__["runs_in"] = "inline"
        self._level = level
        self._now = NOTHING
        self._place: Path | None = None
        self._engine: Any = None
        self._state: State = {}

    def tasks(self, split: Split) -> Sequence[Task]:
        """Distinct games; a hash of the world decides its split (2:1:1), and with cooking the
        package's train, valid and test games besides.

        Raises:
            MissingExtraError: textworld is not installed.
        """
        lengths = {"train": self.train_tasks, "dev": self.dev_tasks, "test": self.test_tasks}
        if self.game == "cooking":
            found = package_starts(self._source(PACKAGE_SPLITS[split]), split)
        else:
            found = starts(self._source(""))
        return Tasks(f"textworld/{self.game}", split, lengths[split], found)

    def reset(self, task: Task) -> str:
        """Begin the game of `task.seed`. Raises `EnvError` if there is none."""
        split = str(task.data.get("split", "train")) if self.game == "cooking" else ""
        walk = task.data.get("turns", 0)
        limit = self.turns or max(10, 3 * int(str(walk)))
        return self._begun(Saved(task.seed, split, (), limit, False, ""))

    def step(self, action: Action) -> Step:
        """A command. The story understands more than the legal ones (`n`, `get coin`); what it
        does not understand costs a turn and is reported invalid."""
        now = self._playing()
        command = " ".join(action.lower().split()) if isinstance(action, str) else ""
        before = self._points
        text, is_valid = self._told(command)
        won, lost = bool(self._state["won"]), bool(self._state["lost"])
        turn = len(now.commands) + 1
        truncated = not (won or lost) and turn >= now.turns
        over = won or lost or truncated
        self._now = now._replace(commands=(*now.commands, command), is_over=over)
        info: dict[str, object] = {"metrics": {"steps": float(turn), "points": self._points}}
        if not is_valid:
            info["invalid_action"] = True
        if over:
            info["success"] = won
        return Step(
            observation=text,
            reward=float(won) if self.reward == "success" else self._points - before,
            terminated=won or lost,
            truncated=truncated,
            info=info,
        )

    def close(self) -> None:
        """Close the game."""
        if self._engine is not None:
            self._engine.close()
        self._now, self._place, self._engine, self._state = NOTHING, None, None, {}

    def snapshot(self) -> Saved:
        """What was done since the reset."""
        return self._now._replace(key=self.state_key())

    def restore(self, snapshot: Saved) -> None:
        """Do again what was done. Raises `EnvError` if it leads elsewhere."""
        if not snapshot.turns:
            self._now = NOTHING
            return
        self._begun(snapshot._replace(commands=(), is_over=False))
        for command in snapshot.commands:
            self._told(command)
        self._now = snapshot
        if self.state_key() != snapshot.key:
            raise EnvError(
                f"textworld: {len(snapshot.commands)} commands in the game of seed {snapshot.seed} "
                "lead elsewhere than they did: is it another version of the package, or cache?"
            )

    def state_key(self) -> str:
        """A hash of the game and its facts, whatever led to them."""
        if not self._state:
            return ""
        facts = [[one.name, *one.things] for one in self._scene.facts]
        game = [self._settings(self._now.split), self._now.seed]
        return digest(json.dumps([game, facts]))

    def legal_actions(self) -> list[str]:
        """The package's admissible commands, sorted."""
        self._playing()
        return [str(command) for command in self._state["admissible_commands"]]

    def expert_action(self) -> str:
        """The package's own next command on its way to win; a cook reads the recipe when it is in
        sight. `look` where there is no way any more."""
        now = self._playing()
        if READ in self._state["admissible_commands"] and READ not in now.commands:
            return READ
        way = self._state["policy_commands"]
        return str(way[0]) if way else "look"

    def check(self, goal: str) -> bool | None:
        """`at kitchen`, `have red potato`: whether it is so. None for any other goal."""
        verb, _, name = goal.strip().partition(" ")
        if not self._state or not name or verb not in ("at", "have"):
            return None
        scene = self._scene
        return name == scene.room if verb == "at" else name in scene.held("I")

    @property
    def _scene(self) -> Scene:
        return Scene.of(self._state)

    @property
    def _points(self) -> float:
        return float(self._state.get("score") or 0) / int(self._state.get("max_score") or 1)

    def _playing(self) -> Saved:
        if self._now.is_over:
            raise RuntimeError("textworld: the episode is over (or never began): call reset(task)")
        return self._now

    def _settings(self, split: str) -> str:
        kind: dict[str, Json] = {"game": self.game, "objective": self.objective}
        if self.game != "cooking":
            return json.dumps({**kind, "level": self._level}, sort_keys=True)
        kind |= {"recipe": self.recipe, "take": self.take, "go": self.go, "open": self.open}
        kind |= {"cook": self.cook, "cut": self.cut, "drop": self.drop}
        return json.dumps({**kind, "recipe_seed": 0, "split": split}, sort_keys=True)

    def _source(self, split: str) -> Source:
        cache = str(self.cache.expanduser()) if self.cache else default_cache()
        return Source(cache, self._settings(split), self.make_s)

    def _begun(self, now: Saved) -> str:
        """Open a game, and what it shows."""
        source = self._source(now.split)
        place = story(source, now.seed, is_compiled=self.prose == "compiled")
        with _OPENING:
            if place != self._place:
                self.close()
                self._engine = opened(place)
            self._place, self._state = place, self._engine.reset()
        self._now = now
        if self.prose == "compiled":
            return tidy(str(self._state["feedback"]))
        return f"{' '.join(str(self._state['objective']).split())}\n{look(self._scene)}"

    def _told(self, command: str) -> tuple[str, bool]:
        """What a command leads to, and whether it was understood."""
        is_legal = command in self._state["admissible_commands"]
        if self.prose == "plain":
            return self._told_plainly(command, is_legal)
        words = command.split()
        if not COMMAND.fullmatch(command) or any(map(FORBIDDEN.fullmatch, words)):
            return f"{NO} .", False
        self._state, _, _ = self._engine.step(command)
        is_valid = is_legal or self._state["_last_action"] is not None
        return tidy(str(self._state["feedback"])), is_valid

    def _told_plainly(self, command: str, is_legal: bool) -> tuple[str, bool]:
        before = self._points
        if is_legal:
            self._state, _, _ = self._engine.step(command)
        scene = self._scene
        lines = [] if is_legal else [NO]
        if command.startswith("examine ") and is_legal:
            lines.append(self._description(command.removeprefix("examine ")))
        if self._points > before:
            lines.append("you made progress")
        if self._state["won"] or self._state["lost"]:
            return "\n".join([*lines, "you won" if self._state["won"] else "you lost"]), is_legal
        return "\n".join([*filter(None, lines), look(scene)]), is_legal

    def _description(self, name: str) -> str:
        """What is read in a thing; other descriptions are programs of Inform, or say nothing."""
        infos = self._state["game"].infos.values()
        texts = [str(info.desc) for info in infos if info.name == name and "Recipe" in info.desc]
        lines = texts[0].partition("Ingredients:")[2].splitlines() if texts else []
        return " , ".join(line.strip() for line in lines if line.strip())


def tidy(feedback: str) -> str:
    """The story's text without its banner, its prompt, what follows that, and empty lines."""
    text = feedback.rpartition("\n>")[0].partition("Would you like to RESTART")[0] or feedback
    lines = (" ".join(line.split()) for line in text.splitlines())
    return "\n".join(line for line in lines if re.search(r"[a-z]", line) or "***" in line)
