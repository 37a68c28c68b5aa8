"""An env that is acted on by calls of tools: a box that a key opens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from agentrl.core.protocols import Env, RunsIn
from agentrl.core.types import Action, Json, Observation, Split, Step, Task
from agentrl.text.calls import call, calls_of

NUMBERS: dict[Split, range] = {"train": range(1, 5), "dev": range(5, 7), "test": range(7, 9)}


@dataclass(kw_only=True)
class Box(Env):
    """`look` tells the number on the key; `open(number=...)` opens the box and ends the episode."""

    runs_in: ClassVar[RunsIn] = "inline"
    actions: ClassVar[str] = "hermes"

    def __post_init__(self) -> None:
        self._number, self._has_looked, self._is_over = 0, False, True

    def tasks(self, split: Split) -> Sequence[Task]:
        return [
            Task(id=f"box/{number}", seed=number, answer=str(number)) for number in NUMBERS[split]
        ]

    def reset(self, task: Task) -> Observation | str:
        self._number, self._has_looked, self._is_over = task.seed, False, False
        return "Open the box."

    def step(self, action: Action) -> Step:
        if self._is_over:
            raise RuntimeError("the episode is over")
        said = []
        for one in calls_of(action):
            if one.name == "look":
                self._has_looked = True
                said.append(f"The key says {self._number}.")
            elif one.name == "open":
                self._is_over = True
                is_right = one.arguments.get("number") == self._number
                return Step(
                    observation="It opens." if is_right else "It stays shut.",
                    reward=float(is_right),
                    terminated=True,
                    info={"success": is_right},
                )
            else:
                return Step(observation="No such tool.", info={"invalid_action": True})
        return Step(observation="\n".join(said))

    def tools(self, task: Task) -> list[Json]:
        number: Json = {"type": "object", "properties": {"number": {"type": "integer"}}}
        return [
            {"name": "look", "description": "Read the key.", "parameters": {"type": "object"}},
            {"name": "open", "description": "Open the box.", "parameters": number},
        ]

    def expert_action(self) -> Action:
        return call("open", number=self._number) if self._has_looked else call("look")

    def state_key(self) -> str:
        return f"{self._number}/{self._has_looked}"
