"""One env under an explorer: how it returns to cells, and what that costs.

A cell is returned to by a snapshot where the env has them, else by playing its actions again from
the start, after which the state's key must be the cell's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from agentrl.core.errors import ConfigError, EnvError
from agentrl.core.exploring import Namer
from agentrl.core.graph import Cell, Trail
from agentrl.core.protocols import Env, EnvHandle, Runner, abilities
from agentrl.core.types import Action, Task
from agentrl.explore.cells import Exact
from agentrl.rollout.answers import as_action, as_observation, as_step

Restore = Literal["auto", "snapshot", "replay"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Landed:
    """Where an action led."""

    key: str
    reward: float
    is_terminal: bool
    is_success: bool
    text: str = ""
    """What the env showed."""
    is_cut: bool = False
    """A limit ended the episode, and not what was done."""


@dataclass(kw_only=True)
class Ground:
    """A task that is explored. `steps` counts every step of the env, replayed ones too."""

    task: Task
    env: EnvHandle
    runner: Runner
    restore: Restore = "auto"
    name: Namer = field(default_factory=lambda: Exact().namer())
    """A state's own key and what is shown -> the key of its cell."""
    text: str = ""
    """What the env showed last."""
    steps: int = 0
    replayed: int = 0
    diverged: int = 0
    """Returns that did not end in the cell that was asked for."""
    _saved: dict[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.restore == "auto":
            able = {"snapshot", "restore"} <= abilities(self.env.template)
            self.restore = "snapshot" if able else "replay"
        self._has_keys = "state_key" in abilities(self.env.template)

    async def begin(self) -> str:
        """Reset; the key of the start."""
        await self._reset()
        key = await self._key()
        await self._save(key)
        return key

    def holds(self, cell: Cell) -> bool:
        """Whether the cell can be returned to by the way that it has."""
        return self.restore == "replay" or cell.key in self._saved

    async def back_to(self, cell: Cell) -> Trail | None:
        """Return to a cell; the way on which the env now stands.

        Raises:
            DivergedError: replaying its actions led elsewhere; the env stands there.
        """
        if self.restore == "snapshot":
            await self._call("restore", self._saved[cell.key])
            return cell.trail
        await self._reset()
        found, is_over = await self._key(), False
        for action in cell.actions():
            self.replayed += 1
            landed = await self.take(action)
            found, is_over = landed.key, landed.is_terminal
            if is_over:
                break
        if is_over or found != cell.key:
            self.diverged += 1
            raise DivergedError(
                f"the way to cell {cell.key!r} of task {self.task.id} led to {found!r}"
                f"{', where the episode ended' if is_over else ''}"
            )
        return cell.trail

    async def take(self, action: Action) -> Landed:
        """Act."""
        self.steps += 1
        step = as_step(await self._call("step", action))
        self.text = as_observation(step.observation).words
        return Landed(
            key=await self._key(),
            reward=float(step.reward),
            is_terminal=step.terminated or step.truncated,
            is_success=bool(step.info.get("success", False)),
            text=self.text,
            is_cut=step.truncated and not step.terminated,
        )

    async def keep(self, key: str) -> None:
        """The env stands on the best way to this cell: it is returned to from here."""
        await self._save(key)

    async def legal_actions(self) -> list[Action]:
        """What may be done here. Raises `EnvError` where nothing may."""
        legal = await self._call("legal_actions")
        if not isinstance(legal, list) or not legal:
            raise EnvError(f"expected a list of actions from legal_actions(), got {legal!r:.200}")
        return [as_action(action) for action in legal]

    async def expert_action(self) -> Action:
        """What the env's expert does here."""
        return as_action(await self._call("expert_action"))

    async def hindsight(self) -> Task | None:
        """The task that the way to here solves. Raises `EnvError` for anything else."""
        task = await self._call("hindsight", self.task)
        if task is not None and not isinstance(task, Task):
            raise EnvError(f"expected a task or None from hindsight(), got {task!r:.200}")
        return task

    async def _reset(self) -> None:
        self.text = as_observation(await self._call("reset", self.task)).words

    async def _save(self, key: str) -> None:
        if self.restore == "snapshot":
            self._saved[key] = await self._call("snapshot")

    async def _key(self) -> str:
        own = str(await self._call("state_key")) if self._has_keys else ""
        return self.name(own, self.text)

    async def _call(self, verb: str, *args: object) -> object:
        return await self.runner.call(self.env, verb, *args)


class DivergedError(EnvError):
    """A replay did not lead where it led before: the env, or its key, is not deterministic."""


def check_explorable(env: Env, restore: Restore, *, needs_state_key: bool = True) -> None:
    """Refuse an env that cannot be explored.

    Raises:
        ConfigError: it has no state keys, no legal actions, or no snapshots though they are wanted.
    """
    able = abilities(env)
    wanted = {"state_key", "legal_actions"} if needs_state_key else {"legal_actions"}
    if restore == "snapshot":
        wanted |= {"snapshot", "restore"}
    if missing := sorted(wanted - able):
        raise ConfigError(
            f"explore: env {type(env).__name__} has no {', '.join(f'{m}()' for m in missing)}, "
            "which exploring needs; use explore=none, or an env that has them (agentrl check-env)"
            f"{_instead(missing)}"
        )


def _instead(missing: list[str]) -> str:
    return "; explore.cells=text does without state keys" if missing == ["state_key"] else ""
