"""Plays the environment of any OpenEnv server, over OpenEnv's own protocol.

    env: {name: openenv, url: "http://localhost:8000", success_at: 1.0}

A reply becomes one field of the server's typed action, an observation's fields become text
(`fit.py`). OpenEnv knows one end of an episode (`done`) and no success; where the server tells more
in its observation, a setting names the field. Whatever goes wrong between here and the server is a
failed episode; the next one connects anew.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal, cast

from annotated_types import Ge, Gt

from agentrl.core.errors import ConfigError, EnvError
from agentrl.core.protocols import Env, RunsIn
from agentrl.core.registry import register
from agentrl.core.rows import row_tasks
from agentrl.core.types import Action, Json, Observation, Split, Step, Task
from agentrl.envs.openenv.example import serve_example
from agentrl.envs.openenv.fit import (
    WHOLE,
    ActionFit,
    UnfitError,
    check_shown,
    fit_action,
    pictures,
    written,
)
from agentrl.envs.openenv.remote import RefusedError, Remote, Shown, schemas
from agentrl.envs.openenv.server import Server


@register("env", "openenv")
@dataclass(kw_only=True)
class OpenEnv(Env):
    """The environment of an OpenEnv server; without `url` an example is served and played."""

    runs_in: ClassVar[RunsIn] = "thread"

    url: str = ""
    """Where the server is: `http://HOST:PORT`, or https."""
    field: str = ""
    """Field of the server's action that takes the reply; empty is the only one that must be given.
    With `*` the reply is the whole action as JSON, or a call of the tool `act`."""
    fixed: dict[str, Json] | None = None
    """Further fields of every action, and their values."""
    show: tuple[str, ...] = ()
    """Fields of the observation that are shown, in this order; none are all but those that the
    settings below name."""
    images: str = ""
    """Field of the observation that holds PNG pictures in base64, one or a list."""
    goal: str = ""
    """First line of the first observation."""
    success: str = ""
    """Field of the observation that is true for a success. Without it the sum of the rewards
    decides."""
    success_at: float = 1.0
    """Sum of rewards from which an episode is a success, where no field says so."""
    truncated: str = ""
    """Field of the observation that is true when a limit ended the episode."""
    invalid: str = ""
    """Field of the observation that is true when the action was not understood."""
    errors: Literal["fail", "tell"] = "fail"
    """What an error comes to that the server reports for an action which fits the schema: a failed
    episode, or an invalid action whose message the model is told."""
    rows: Path | None = None
    """A JSON-lines file; `reset` gets the keys of a line. Without it `reset` gets `seed`."""
    seeds: Annotated[int, Ge(1)] = 1_000
    """How many seeds there are without a file; a hash of the row decides its split (2:1:1)."""
    patience_s: Annotated[float, Gt(0)] = 25.0
    """Seconds that the server may take for an answer, and to have a session free (above 0);
    `rollout.env_timeout_s` has to be larger."""

    def __post_init__(self) -> None:
        if self.url and not self.url.startswith(("http://", "https://")):
            raise ConfigError(f"env.url: expected http://HOST:PORT, got {self.url!r}")
        self._server: Server | None = None
        self._remote: Remote | None = None
        self._fit: ActionFit | None = None
        self._total = 0.0
        self._is_over = True
        if self.field != WHOLE:
            self.__dict__["tools"] = None  # having the method is having the ability

    def tasks(self, split: Split) -> Sequence[Task]:
        """Distinct rows; equal rows are one task. Raises `ConfigError` if there is no server, or
        the settings do not fit its schemas."""
        found = row_tasks(self.rows, seeds=self.seeds, prefix="openenv", split=split)
        self._fitted()
        return found

    def reset(self, task: Task) -> Observation:
        """Begin the episode of a row."""
        due = time.monotonic() + self.patience_s
        self._fitted()
        if self._remote is None:
            self._remote = Remote(self._place(), self.patience_s)
        self._is_over = True
        row = cast("Mapping[str, Json]", task.data["row"])
        shown = self._remote.reset(row, due)
        if shown.done:
            raise EnvError(f"{self._remote.url}: the episode of {row!r:.200} is over at its reset")
        self._total, self._is_over = 0.0, False
        return self._told(shown, self.goal)

    def step(self, action: Action) -> Step:
        """Act; what is no action costs a turn, is told, and is counted invalid."""
        if self._remote is None or self._is_over:
            raise RuntimeError("openenv: the episode is over (or never began): call reset(task)")
        try:
            if not isinstance(action, str):
                raise UnfitError("expected one action")
            shown = self._remote.step(self._fitted().action(action))
        except UnfitError as error:
            return Step(observation=str(error), info={"invalid_action": True})
        except RefusedError as error:
            if error.code == "VALIDATION_ERROR" or self.errors == "tell":
                return Step(observation=str(error), info={"invalid_action": True})
            raise
        return self._came(shown)

    def tools(self, task: Task) -> list[Mapping[str, Json]]:
        """The action as a tool."""
        return [self._fitted().tool]

    def close(self) -> None:
        """End the session; the next reset opens another one."""
        remote, self._remote = self._remote, None
        if remote is not None:
            remote.close()
        server, self._server = self._server, None
        if server is not None:
            server.close()
        self._is_over = True

    # --- what the server said -----------------------------------------------------------------

    def _came(self, shown: Shown) -> Step:
        self._total += shown.reward
        self._is_over = shown.done
        is_cut = shown.done and self._flag(shown, self.truncated)
        info: dict[str, object] = {}
        if self._flag(shown, self.invalid):
            info["invalid_action"] = True
        if shown.done:
            by_reward = self._total >= self.success_at
            info["success"] = self._flag(shown, self.success) if self.success else by_reward
        return Step(
            observation=self._told(shown),
            reward=shown.reward,
            terminated=shown.done and not is_cut,
            truncated=is_cut,
            info=info,
        )

    def _flag(self, shown: Shown, name: str) -> bool:
        return bool(name and shown.observation.get(name))

    def _told(self, shown: Shown, goal: str = "") -> Observation:
        named = {self.images, self.success, self.truncated, self.invalid}
        names = self.show or [name for name in shown.observation if name not in named]
        text = written(shown.observation, names)
        images = pictures(shown.observation.get(self.images)) if self.images else ()
        return Observation(f"{goal}\n{text}" if goal else text, images=images)

    # --- the server ---------------------------------------------------------------------------

    def _place(self) -> str:
        if self.url:
            return self.url
        if self._server is None:
            self._server = serve_example()
        return self._server.url

    def _fitted(self) -> ActionFit:
        """How replies become actions; the server is asked once."""
        if self._fit is None:
            was_open = self._server is not None
            place = self._place()
            found = schemas(place, self.patience_s)
            seen = found.get("observation") or {}
            for key in ("images", "success", "truncated", "invalid"):
                check_shown(seen, [getattr(self, key)], key, place)
            check_shown(seen, self.show, "show", place)
            self._fit = fit_action(found["action"], self.field, self.fixed or {}, place)
            if self._server is not None and not was_open and self._remote is None:
                self._server.close()
                self._server = None
        return self._fit
