"""An env whose one way is a secret, and exploring it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import ClassVar

from agentrl.core.exploring import Found
from agentrl.core.protocols import Env, Explorer, RunsIn
from agentrl.core.types import Action, Split, Step, Task
from agentrl.rollout.runners import runner_for

TASKS = [Task(id=f"lock/{n}", seed=n) for n in range(3)]


@dataclass(kw_only=True)
class Lock(Env):
    """A secret sequence of L and R opens it; a wrong one leads into a pit or back to the start."""

    runs_in: ClassVar[RunsIn] = "inline"
    length: int = 8
    noise: float = 0.0
    """Chance that a step leads somewhere else."""
    breaks_at: int = 0
    """The step that raises; 0 for none."""

    def __post_init__(self) -> None:
        self._at = 0
        self._steps = 0
        self._is_over = True
        self._noise = Random(0)

    def tasks(self, split: Split) -> Sequence[Task]:
        return TASKS

    def reset(self, task: Task) -> str:
        rng = Random(task.seed)
        self._secret = [rng.choice("LR") for _ in range(self.length)]
        self._at, self._is_over = 0, False
        return "a lock"

    def step(self, action: Action) -> Step:
        if self._is_over:
            raise RuntimeError("the episode is over")
        self._steps += 1
        if self.breaks_at and self._steps == self.breaks_at:
            raise ValueError("jammed")
        self._at = self._at + 1 if action == self._secret[self._at] else 0
        if self._noise.random() < self.noise:
            self._at = self._noise.randrange(self.length)
        self._is_over = self._at == self.length
        return Step(
            observation="click",
            reward=float(self._is_over),
            terminated=self._is_over,
            info={"success": True} if self._is_over else {},
        )

    def legal_actions(self) -> list[str]:
        return ["L", "R"]

    def state_key(self) -> str:
        return str(self._at)


def found(how: Explorer, env: Env, folder: Path, tasks: Sequence[Task] = TASKS) -> list[Found]:
    said: list[str] = []
    results = asyncio.run(how.find(tasks, env, runner_for(env), folder, seed=1, say=said.append))
    assert said[-1].startswith(f"explore: {len(tasks)} of {len(tasks)} tasks")
    return results
