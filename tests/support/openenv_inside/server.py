"""A server made of OpenEnv's own classes, for the interpreter of `.venv-openenv`:

    python server.py PORT SESSIONS

The game: count from the seed to 10 beyond it without stepping over. Some amounts break it.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import uvicorn
from openenv.core.env_server import Action, Environment, Observation, State
from openenv.core.env_server.http_server import create_fastapi_app

FAR = 10
RAISES, HANGS, DIES = 13, 14, 15
HANGS_S = 5.0


class Move(Action):  # type: ignore[misc]
    """Count on."""

    amount: int
    note: str | None = None


class Place(Observation):  # type: ignore[misc]
    """Where the count is."""

    now: int
    target: int
    notes: list[str]


class Counting(Environment):  # type: ignore[misc]
    """One session's game."""

    SUPPORTS_CONCURRENT_SESSIONS = True

    def __init__(self) -> None:
        super().__init__()
        self._now = self._target = self._steps = 0
        self._notes: list[str] = []

    def reset(self, seed: int | None = None, episode_id: str | None = None, **_: Any) -> Place:
        self._now, self._steps, self._notes = seed or 0, 0, []
        self._target = self._now + FAR
        return self._place()

    def step(self, action: Move, timeout_s: float | None = None, **_: Any) -> Place:
        if action.amount == RAISES:
            raise ValueError("13 is unlucky")
        if action.amount == HANGS:
            time.sleep(HANGS_S)
        if action.amount == DIES:
            os._exit(1)
        self._now += action.amount
        self._steps += 1
        self._notes += [action.note] if action.note else []
        return self._place()

    @property
    def state(self) -> State:
        return State(episode_id=None, step_count=self._steps)

    def _place(self) -> Place:
        return Place(
            now=self._now,
            target=self._target,
            notes=self._notes,
            done=self._now >= self._target,
            reward=float(self._now == self._target),
        )


if __name__ == "__main__":
    app = create_fastapi_app(Counting, Move, Place, max_concurrent_envs=int(sys.argv[2]))
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
