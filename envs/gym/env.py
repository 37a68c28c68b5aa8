"""Any Gymnasium environment with few enough numbers, as a text environment.

    env: {name: gymnasium, id: FrozenLake-v1, kwargs: {is_slippery: true}}

    walk to G past the holes H
    @ F F F
    F H F H
    F F F H
    H F F G

Actions are said by name (`left`), or by number where an env has no names. The game, its rewards and
its randomness are Gymnasium's own, seeded by the task, so that a task is the same episode for the
same actions. What is known of Gymnasium's own text games stands in `known.py`.
"""

from __future__ import annotations

import copy
import importlib
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple, cast

import numpy as np
from annotated_types import Ge, Gt, Le, MinLen

from agentrl.core.errors import ConfigError, did_you_mean
from agentrl.core.protocols import Env
from agentrl.core.registry import register
from agentrl.core.starts import Beginning, Starts, Tasks, digest
from agentrl.core.types import Action, Json, Split, Step, Task
from agentrl.envs.gym.known import known, uncoloured
from agentrl.envs.gym.spaces import action_words, check_shown, written
from agentrl.envs.gym.table import Plan, Rule, Table, solve

if TYPE_CHECKING:
    import gymnasium
    from gymnasium.envs.registration import EnvSpec

    from agentrl.envs.gym.known import Game

UNLIMITED = 1_000
"""Steps that the expert looks ahead in an env without a limit."""
SHARED = ("P", "desc", "initial_state_distrib")
"""Attributes of a game that no episode changes: copies share them."""


class Saved(NamedTuple):
    """A snapshot: a copy of the game, what it showed last, and what was counted."""

    game: Game
    shown: Shown
    steps: int
    total: float
    is_over: bool


class Shown(NamedTuple):
    """What a game said last: its observation and the actions that its mask allows."""

    observation: object
    mask: tuple[bool, ...] | None


@register("env", "gymnasium")
@dataclass(kw_only=True)
class Gymnasium(Env):
    """Gymnasium environments as text (FrozenLake, Taxi, ... and those of other packages)."""

    licence: ClassVar[str] = "MIT (gymnasium); another package's games have their own"
    cite: ClassVar[str] = "Towers et al. 2024 (Gymnasium), arXiv 2407.17032"

    id: Annotated[str, MinLen(1)] = "FrozenLake-v1"
    """An id of Gymnasium's registry; `package.module:Name-v0` imports the module first."""
    kwargs: dict[str, Json] | None = None
    """Arguments of the env's constructor. `none` are those of `known.py` (FrozenLake without
    slipping), `{}` are the env's own defaults."""
    show: Literal["auto", "words", "ansi", "space"] = "auto"
    """What is shown: `words` written for this env, its own `ansi` rendering, or the observation by
    its `space`, numbers between spaces. `auto` is the first of them that there is."""
    digits: Annotated[int, Ge(0), Le(17)] = 2
    """Digits after the point of numbers that are not whole."""
    names: tuple[str, ...] = ()
    """Names of the actions in the order of their numbers; none: the known ones, or the numbers."""
    goal: str | None = None
    """First line of the first observation; `none` is the known one, or a list of the actions."""
    success: Literal["auto", "last_reward", "return", "terminated"] = "auto"
    """What success is: an end with a `last_reward` above `threshold`, a `return` of at least
    `threshold`, or any `terminated` end. `auto` is the known rule; of others `return` where the
    env's spec has a reward threshold, else `last_reward`."""
    threshold: float | None = None
    """See `success`; `none` is 0 for `last_reward` and the spec's reward threshold for `return`."""
    cap: Annotated[int, Ge(1)] | None = None
    """Steps until truncation, unknown actions included; `none` is the env's own limit."""
    map_size: Annotated[int, Ge(2)] = 4
    """FrozenLake only: side of the random map that each task gets, unless `kwargs` has `desc` or
    `map_name`."""
    map_frozen: Annotated[float, Gt(0), Le(1)] = 0.8
    """FrozenLake only: how likely a tile of the random map is no hole (0 to 1)."""
    split_by: Literal["start", "seed"] = "start"
    """Tasks differ by their `start` and splits share none; or by their `seed` only, for an env that
    always begins in the same state and is random afterwards."""
    train_tasks: Annotated[int, Ge(1)] | None = None
    """Length of the train split; `none` is 2,000, or fewer in an env known to have fewer starts."""
    dev_tasks: Annotated[int, Ge(1)] | None = None
    """Length of the dev split; `none` is 200, or fewer."""
    test_tasks: Annotated[int, Ge(1)] | None = None
    """Length of the test split; `none` is 400, or fewer."""

    def __post_init__(self) -> None:
        self._id = imported(self.id)
        self._known = known(self._id)
        probe = self._make(seed=0)
        self._look_at(probe)
        self._limit = self.cap or spec_of(self._id).max_episode_steps
        self._words = action_words(probe.action_space, self.names or self._known.actions)
        probe.reset(seed=0)
        missing = {
            "legal_actions": not self._words.names,
            "expert_action": table_of(probe) is None,
            "snapshot": not is_copyable(probe),
            "restore": not is_copyable(probe),
        }
        # Having the method is having the ability.
        self.__dict__.update({name: None for name, is_missing in missing.items() if is_missing})
        probe.close()
        self._game: Game | None = None
        self._plan: Plan | None = None
        self._starts: Starts | None = None
        self._map = ""
        self._shown = Shown(None, None)
        self._steps, self._total, self._is_over = 0, 0.0, True

    def tasks(self, split: Split) -> Sequence[Task]:
        """Distinct starts; a hash of the start itself decides its split (2:1:1)."""
        given = {"train": self.train_tasks, "dev": self.dev_tasks, "test": self.test_tasks}
        if self._starts is None:
            self._starts = self._walk()
        return Tasks(self.id, split, given[split] or self._known.lengths[split], self._starts)

    def reset(self, task: Task) -> str:
        """Begin what `task.seed` begins."""
        game = self._begin(task.seed)
        goal = self._known.goal if self.goal is None else self.goal
        if self.goal is None and not goal and self._words.names:
            goal = f"say one of {' '.join(self._words.names)}"
        return f"{goal}\n{self._text(game)}" if goal else self._text(game)

    def step(self, action: Action) -> Step:
        """An action; what is none costs a step, changes nothing and is reported invalid."""
        game = self._playing()
        chosen = self._words.read(action.strip()) if isinstance(action, str) else None
        reward, terminated, truncated = 0.0, False, False
        self._steps += 1
        info: dict[str, object] = {"metrics": {"steps": float(self._steps)}}
        if chosen is None:
            info["invalid_action"] = True
        else:
            observation, gain, terminated, truncated, said = game.step(chosen)
            reward, terminated, truncated = float(gain), bool(terminated), bool(truncated)
            self._shown = Shown(observation, mask_of(said))
        truncated = (truncated or self._steps >= (self._limit or self._steps + 1)) and (
            not terminated
        )
        self._total += reward
        self._is_over = terminated or truncated
        if self._is_over:
            info["success"] = self._is_won(reward, terminated)
        return Step(
            observation=self._text(game),
            reward=reward,
            terminated=terminated,
            truncated=truncated,
            info=info,
        )

    def close(self) -> None:
        """Close the game; the next reset makes a new one."""
        if self._game is not None:
            self._game.close()
        self._game, self._is_over = None, True

    def snapshot(self) -> Saved:
        """A copy of the game, its random numbers included."""
        game = self._begun()
        return Saved(copied(game), self._shown, self._steps, self._total, self._is_over)

    def restore(self, snapshot: Saved) -> None:
        """Go on from a snapshot of an env with these settings."""
        self._take(copied(snapshot.game))
        self._shown, self._steps = snapshot.shown, snapshot.steps
        self._total, self._is_over = snapshot.total, snapshot.is_over

    def state_key(self) -> str:
        """Map and observation, exactly; an env that hides a part of its state from the observation
        gives several states one key."""
        self._begun()
        return f"{self._map}:{written(self._shown.observation, None)}"

    def legal_actions(self) -> list[str]:
        """All actions, or those that the env's action mask allows."""
        self._playing()
        names, mask = self._words.names, self._shown.mask
        if mask is None or not any(mask):
            return list(names)
        return [name for name, is_legal in zip(names, mask, strict=True) if is_legal]

    def expert_action(self) -> str:
        """The best action for the steps that are left, by the env's own transition table."""
        game = self._playing()
        left = UNLIMITED if self._limit is None else self._limit - self._steps
        return self._words.names[self.plan(game).best(int(str(self._shown.observation)), left)]

    def plan(self, game: Game) -> Plan:
        """The expert's plan for this game, made once."""
        if self._plan is None:
            table = table_of(game)
            assert table is not None
            rule, threshold = self._rule
            self._plan = solve(
                table, horizon=self._limit or UNLIMITED, rule=rule, threshold=threshold
            )
        return self._plan

    # --- the game ---------------------------------------------------------------------------------

    def _begin(self, seed: int) -> Game:
        if self._game is None or self._has_map:
            self._take(self._make(seed))
        game = self._begun()
        observation, said = game.reset(seed=seed)
        self._shown = Shown(observation, mask_of(said))
        self._steps, self._total, self._is_over = 0, 0.0, False
        return game

    def _take(self, game: Game) -> None:
        """Play this game from now on; a plan holds for all games on one map."""
        here = map_of(game)
        if here != self._map:
            self._plan = None
        self._game, self._map = game, here

    @property
    def _has_map(self) -> bool:
        return self._known.has_maps and not {"desc", "map_name"} & set(self.kwargs or {})

    def _make(self, seed: int) -> Game:
        """A fresh game. Raises `ConfigError` for arguments that the env does not take."""
        import gymnasium

        kwargs = dict(self._known.kwargs if self.kwargs is None else self.kwargs)
        if "render_mode" in kwargs:
            raise ConfigError("env.kwargs: render_mode is decided by env.show (ansi, for one)")
        if self._has_map:
            kwargs["desc"] = random_map(self.map_size, self.map_frozen, seed)
        try:
            if self._wants_ansi():
                kwargs["render_mode"] = "ansi"
            if spec_of(self._id).entry_point is None:
                return alone(self._id, kwargs)
            return cast(
                "Game",
                gymnasium.make(
                    spec_of(self._id), max_episode_steps=-1, disable_env_checker=True, **kwargs
                ),
            )
        except ConfigError:
            raise
        except (gymnasium.error.Error, TypeError, ValueError, LookupError, AssertionError) as error:
            raise ConfigError(
                f"env.kwargs: {self.id} cannot be made with {kwargs!r:.200}: "
                f"{type(error).__name__}: {error}"
            ) from error
        except ImportError as error:
            raise ConfigError(f"env.id: {self.id} needs another package: {error}") from error

    def _wants_ansi(self) -> bool:
        if self.show not in ("ansi", "auto") or (self.show == "auto" and self._known.show):
            return False
        modes = render_modes(self._id)
        if self.show == "ansi" and "ansi" not in modes:
            raise ConfigError(
                f"env.show: {self.id} has no ansi rendering (it has {', '.join(modes)}); use "
                "env.show=space"
            )
        return "ansi" in modes

    def _look_at(self, probe: Game) -> None:
        """Settle what is shown and what success is. Raises `ConfigError`."""
        if self.show == "words" and self._known.show is None:
            raise ConfigError(
                f"env.show: there are no words for {self.id}; use env.show=space or ansi"
            )
        if self.show == "space" or (
            probe.render_mode != "ansi" and (self._known.show is None or self.show == "ansi")
        ):
            check_shown(probe.observation_space)
        limit = spec_of(self._id).reward_threshold
        rule: Rule | None = self._known.success if self.success == "auto" else self.success
        if rule is None:
            rule = "last_reward" if limit is None else "return"
        threshold = self.threshold
        if rule == "return" and threshold is None:
            threshold = limit
            if threshold is None:
                raise ConfigError(
                    f"env.threshold: {self.id} has no reward threshold of its own, so "
                    "env.success=return needs one"
                )
        self._rule = rule, threshold or 0.0

    def _is_won(self, reward: float, terminated: bool) -> bool:
        rule, threshold = self._rule
        if rule == "return":
            return self._total >= threshold
        return terminated and (rule == "terminated" or reward > threshold)

    def _text(self, game: Game) -> str:
        show = self._known.show
        if show is not None and self.show in ("auto", "words"):
            return show(game, self._shown.observation)
        if self.show != "space" and game.render_mode == "ansi":
            return uncoloured(str(game.render()))
        return written(self._shown.observation, self.digits)

    def _begun(self) -> Game:
        if self._game is None:
            raise RuntimeError("gymnasium: nothing has begun: call reset(task)")
        return self._game

    def _playing(self) -> Game:
        if self._is_over:
            raise RuntimeError("gymnasium: the episode is over (or never began): call reset(task)")
        return self._begun()

    def _walk(self) -> Starts:
        walker = replace(self)

        def begin(seed: int) -> Beginning:
            if self.split_by == "seed":
                return Beginning(digest(f"seed {seed}"))
            if self._has_map:  # a game for each of thousands of maps would be slow to make
                key = f"{'/'.join(random_map(self.map_size, self.map_frozen, seed))}:0"
            else:
                walker._begin(seed)
                key = walker.state_key()
            return Beginning(digest(key), data={"start": key})

        return Starts(
            begin,
            place="env.id",
            what=self.id,
            advice="; where an env always begins alike, env.split_by=seed tells tasks apart by "
            "their randomness alone",
        )


def imported(gym_id: str) -> str:
    """The id without a module, which is imported. Raises `ConfigError` if there is no such env."""
    import gymnasium

    module, _, name = gym_id.rpartition(":")
    if module:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise ConfigError(f"env.id: {module} cannot be imported: {error}") from error
    if name not in gymnasium.registry:
        raise ConfigError(
            f"env.id: Gymnasium knows no {name!r}{did_you_mean(name, gymnasium.registry)} (ids "
            "of other packages are written package.module:Name-v0)"
        )
    return name


def spec_of(gym_id: str) -> EnvSpec:
    """What the registry says of an env."""
    import gymnasium

    return gymnasium.registry[gym_id]


def alone(gym_id: str, kwargs: Mapping[str, Any]) -> gymnasium.Env[object, object]:
    """One game of an id that Gymnasium has for many only."""
    import gymnasium

    from agentrl.envs.gym.one import One

    return One(gymnasium.make_vec(gym_id, num_envs=1, **kwargs))


def render_modes(gym_id: str) -> list[str]:
    """The ways in which an env can draw itself."""
    from gymnasium.envs.registration import load_env_creator

    entry = spec_of(gym_id).entry_point
    creator = load_env_creator(entry) if isinstance(entry, str) else entry
    metadata = getattr(creator, "metadata", {})
    return [str(mode) for mode in metadata.get("render_modes", [])]


def random_map(size: int, frozen: float, seed: int) -> list[str]:
    """Gymnasium's random map for a seed, on which the goal can be reached."""
    from gymnasium.envs.toy_text.frozen_lake import generate_random_map

    return generate_random_map(size=size, p=frozen, seed=seed)


def map_of(game: Game) -> str:
    """The map that a FrozenLake is played on, empty for other envs."""
    desc = getattr(game.unwrapped, "desc", None)
    if not isinstance(desc, np.ndarray) or b"S" not in desc:
        return ""
    return "/".join(row.tobytes().decode() for row in desc)


def mask_of(said: Mapping[str, object]) -> tuple[bool, ...] | None:
    """The action mask in a game's info, if there is one."""
    mask = said.get("action_mask")
    return None if mask is None else tuple(bool(m) for m in cast("Sequence[int]", mask))


def table_of(game: Game) -> Table | None:
    """The env's transition table, if it has one that says all: its states are what is observed,
    and nothing happens outside of it (Taxi's fickle passenger does)."""
    from gymnasium import spaces

    table = getattr(game.unwrapped, "P", None)
    seen, done = game.observation_space, game.action_space
    is_table = (
        isinstance(table, dict)
        and isinstance(seen, spaces.Discrete)
        and isinstance(done, spaces.Discrete)
        and (seen.start, done.start) == (0, 0)
        and set(table) == set(range(int(seen.n)))
        and not getattr(game.unwrapped, "fickle_passenger", False)
    )
    return cast("Table", table) if is_table else None


def copied(game: Game) -> Game:
    """A copy that goes on by itself."""
    kept = [getattr(game.unwrapped, name, None) for name in SHARED]
    return copy.deepcopy(game, {id(value): value for value in kept if value is not None})


def is_copyable(game: Game) -> bool:
    """Whether `copied` works for this game."""
    try:
        copied(game)
    except (TypeError, ValueError, AttributeError, NotImplementedError, pickle.PicklingError):
        return False
    return True
