"""BabyAI and MiniGrid levels as text: go somewhere, pick something up, open a door.

The words describe only what the agent's own 7x7 view shows, nearest things first:

    goal go to the red ball
    front free wall 4 see red ball 2 forward 1 left , blue key 3 right

`front` names the cell that the agent faces and `wall` counts the steps to the wall ahead. The
levels, their rewards and the bot that plays the expert are minigrid's own, unchanged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, NamedTuple

from annotated_types import Ge

from agentrl.core.errors import ConfigError
from agentrl.core.protocols import Env, RunsIn
from agentrl.core.registry import register
from agentrl.core.starts import Tasks
from agentrl.core.types import Action, Observation, Split, Step, Task
from agentrl.envs.babyai.expert import HAS_BOT, Bot
from agentrl.envs.babyai.game import (
    ACTIONS,
    NO_OP,
    act,
    actions,
    can_toggle,
    key,
    level_id,
    load,
    make,
    save,
)
from agentrl.envs.babyai.goals import holds
from agentrl.envs.babyai.starts import starts
from agentrl.envs.babyai.view import describe, picture

if TYPE_CHECKING:
    from minigrid.minigrid_env import MiniGridEnv


class Saved(NamedTuple):
    """A snapshot: the game's own state, and what leads there from the start of the episode."""

    game: bytes
    seed: int
    log: tuple[int, ...]
    is_over: bool


@register("env", "babyai")
@dataclass(kw_only=True)
class BabyAI(Env):
    """Grid rooms with coloured things, a goal in words, and a 7x7 view (minigrid's levels)."""

    runs_in: ClassVar[RunsIn] = "inline"
    licence: ClassVar[str] = "MIT (minigrid)"
    cite: ClassVar[str] = (
        "Chevalier-Boisvert et al. 2019 (BabyAI), arXiv 1810.08272; "
        "Chevalier-Boisvert et al. 2023 (Minigrid), arXiv 2306.13831"
    )

    level: str = "GoToObj"
    """A level's short name: `GoToObj` is `BabyAI-GoToObj-v0`, `DoorKey-6x6` is MiniGrid's."""
    cap: Annotated[int, Ge(1)] = 16
    """Steps until truncation; success after n steps is worth 1 - 0.9 * n / cap."""
    repeat_goal: bool = False
    """Say the goal in each observation (for context policies that forget the first)."""
    words: bool = True
    """Describe the view in words."""
    images: bool = False
    """Show the view as a picture."""
    tile_pixels: Annotated[int, Ge(1)] = 16
    """Side of one of the picture's 7x7 cells, in pixels."""
    train_tasks: Annotated[int, Ge(1)] = 2_000
    """Length of the train split; each task is another start."""
    dev_tasks: Annotated[int, Ge(1)] = 200
    """Length of the dev split."""
    test_tasks: Annotated[int, Ge(1)] = 400
    """Length of the test split."""

    def __post_init__(self) -> None:
        if not (self.words or self.images):
            raise ConfigError("babyai: words and images are both off: the agent would see nothing")
        self._id = level_id(self.level)
        self._game: MiniGridEnv | None = None
        self._bot: Bot | None = None
        self._seed = 0
        self._log: list[int] = []
        self._is_over = True
        if not HAS_BOT.match(self._id):
            # Having the method is having the ability.
            self.__dict__["expert_action"] = None

    def tasks(self, split: Split) -> Sequence[Task]:
        """Distinct starts; a hash of the start itself decides its split (2:1:1)."""
        lengths = {"train": self.train_tasks, "dev": self.dev_tasks, "test": self.test_tasks}
        return Tasks(self.level, split, lengths[split], starts(self._id))

    def reset(self, task: Task) -> Observation:
        """Begin the level that `task.seed` generates."""
        if self._game is None:
            self._game = make(self._id)
        self._game.reset(seed=task.seed)
        self._game.max_steps = self.cap
        self._seed, self._log, self._is_over = task.seed, [], False
        return self._observe(self._game, is_first=True)

    def step(self, action: Action) -> Step:
        """One of `ACTIONS`; anything else does nothing, costs a step and is reported invalid."""
        game = self._playing()
        number = ACTIONS.index(action) if action in actions(game) else NO_OP
        reward, terminated = act(game, number)
        self._log.append(number)
        truncated = not terminated and game.step_count >= self.cap
        self._is_over = terminated or truncated
        info: dict[str, object] = {"metrics": {"steps": float(game.step_count)}}
        if self._is_over:
            info["success"] = terminated and reward > 0
        if number == NO_OP:
            info["invalid_action"] = True
        return Step(
            observation=self._observe(game),
            reward=reward,
            terminated=terminated,
            truncated=truncated,
            info=info,
        )

    def close(self) -> None:
        """Forget the game; the next reset makes a new one."""
        self._game = self._bot = None
        self._is_over = True

    def snapshot(self) -> Saved:
        """The whole state, random numbers included; it may be sent to another process."""
        game = self._game
        if game is None:
            raise RuntimeError("babyai: nothing to snapshot before the first reset")
        return Saved(save(game), self._seed, tuple(self._log), self._is_over)

    def restore(self, snapshot: Saved) -> None:
        """Go on from a snapshot of this level as if nothing had happened since."""
        if self._game is None:
            self._game = make(self._id)
        load(self._game, snapshot.game)
        self._seed, self._log = snapshot.seed, list(snapshot.log)
        self._is_over = snapshot.is_over

    def state_key(self) -> str:
        """Goal and its progress, grid, agent and load; not the number of steps taken."""
        if self._game is None:
            raise RuntimeError("babyai: no state before the first reset")
        return key(self._game)

    def legal_actions(self) -> list[str]:
        """Turns, and whatever would change something now."""
        game = self._playing()
        front = game.grid.get(*game.front_pos)
        useful = {
            "left": True,
            "right": True,
            "forward": front is None or front.can_overlap(),
            "pickup": front is not None and front.can_pickup() and game.carrying is None,
            "drop": front is None and game.carrying is not None,
            "toggle": front is not None and can_toggle(game, front),
        }
        return [action for action in actions(game) if useful[action]]

    def expert_action(self) -> str:
        """The bot's advice, which takes into account all that was done in this episode."""
        self._playing()
        if self._bot is None or not self._bot.follows(self._seed, self._log):
            self._bot = Bot(self._id, self._seed)
        return self._bot.advise(self._log)

    def check(self, goal: str) -> bool | None:
        """Conditions on the grid (`envs/babyai/goals.py`): `at 3 4`, `touched 3 4`, `front red
        key`, `carrying red key`, `open red door`, `reached goal`. None for any other goal."""
        return None if self._game is None else holds(self._game, self._seed, self._id, goal)

    def _playing(self) -> MiniGridEnv:
        if self._game is None or self._is_over:
            raise RuntimeError("babyai: the episode is over (or never began): call reset(task)")
        return self._game

    def _observe(self, game: MiniGridEnv, *, is_first: bool = False) -> Observation:
        lines = []
        if is_first or self.repeat_goal:
            lines.append("goal " + game.mission.lower().replace(",", " ,"))
        if self.words:
            lines.append(describe(game))
        pictures = (picture(game, self.tile_pixels),) if self.images else ()
        return Observation("\n".join(lines), images=pictures)
