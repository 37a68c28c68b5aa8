"""One env for each check of `agentrl check-env`: it breaks that promise and keeps all others.

Module-level classes, so that spawned processes can import them.
"""

from __future__ import annotations

import math
import random
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import ClassVar, cast

from agentrl.core.protocols import RunsIn
from agentrl.core.types import Action, Observation, Split, Step, Task
from support.envs import WAKE, WORDS, EchoEnv

# --- tasks ----------------------------------------------------------------------------------------


class NoTasks(EchoEnv):
    def tasks(self, split: Split) -> Sequence[Task]:
        return []


class IdsRepeat(EchoEnv):
    def tasks(self, split: Split) -> Sequence[Task]:
        return [replace(task, id=f"echo/{task.seed % 7}") for task in super().tasks(split)]


class TasksChange(EchoEnv):
    def tasks(self, split: Split) -> Sequence[Task]:
        tasks = list(super().tasks(split))
        random.Random().shuffle(tasks)
        return tasks


@dataclass(kw_only=True)
class EveryTaskInMemory(EchoEnv):
    length: int = 3

    def tasks(self, split: Split) -> Sequence[Task]:
        tasks = list(super().tasks(split))
        return tasks + [tasks[0]] * 20_000


class DataIsNoJson(EchoEnv):
    def tasks(self, split: Split) -> Sequence[Task]:
        odd = {"seen": {1}}
        return [replace(t, data={**t.data, **odd}) for t in super().tasks(split)]  # type: ignore[dict-item]


class TasksStayAtHome(EchoEnv):
    def tasks(self, split: Split) -> Sequence[Task]:
        return [replace(t, data=MappingProxyType(dict(t.data))) for t in super().tasks(split)]


class SplitsOverlap(EchoEnv):
    def tasks(self, split: Split) -> Sequence[Task]:
        mine = list(super().tasks(split))
        again = replace(super().tasks("train")[3], id="echo/again")
        return [*mine, again] if split == "test" else mine


# --- episodes -------------------------------------------------------------------------------------


class NowhereToRun(EchoEnv):
    runs_in: ClassVar[RunsIn] = "fibre"  # type: ignore[assignment]


class ShowsNothing(EchoEnv):
    def reset(self, task: Task) -> str:
        super().reset(task)
        return ""


class ShowsRawBytes(EchoEnv):
    def _observe(self) -> str:
        return super()._observe() + b" caf\xe9".decode("ascii", "surrogateescape")


class KnowsItsNumber(EchoEnv):
    opened: ClassVar[list[int]] = []

    def __post_init__(self) -> None:
        super().__post_init__()
        self.opened.append(len(self.opened))
        self._number = self.opened[-1]

    def reset(self, task: Task) -> str:
        return f"{super().reset(task)} (copy {self._number})"


class OneEpisodeForAll(EchoEnv):
    """One in each split, so that the splits stay apart."""

    def tasks(self, split: Split) -> Sequence[Task]:
        return [replace(task, answer=None) for task in super().tasks(split)]

    def reset(self, task: Task) -> Observation | str:
        first = {0: 0, 1: 0, 2: 2, 3: 3}[task.seed % 4]
        words = [WORDS[first // 6], WORDS[first % 6]]
        return super().reset(replace(task, data={"words": words}))


@dataclass(kw_only=True)
class ShowsTheClock(EchoEnv):
    """Keeps its promises; a base for those that don't."""

    length: int = 3

    def _observe(self) -> str:
        return f"{super()._observe()} (turn {self._turn})"


class RemembersWhatWasBrokenOff(ShowsTheClock):
    def reset(self, task: Task) -> str:
        turn = 0 if self._is_over else self._turn
        super().reset(task)
        self._turn = turn
        return self._observe()

    def close(self) -> None:
        self._is_over = True


class SpoilsItsTasks(EchoEnv):
    def reset(self, task: Task) -> Observation | str:
        cast("dict[str, object]", task.data)["seen"] = True
        return super().reset(task)


class PaysNothingButNaN(EchoEnv):
    def step(self, action: Action) -> Step:
        return replace(super().step(action), reward=math.nan)


class MeasuresInWords(EchoEnv):
    def step(self, action: Action) -> Step:
        step = super().step(action)
        return replace(step, info={**step.info, "metrics": {"said": "two"}})


class KeepsQuietAboutDefeat(EchoEnv):
    def step(self, action: Action) -> Step:
        step = super().step(action)
        return replace(step, info={k: v for k, v in step.info.items() if v is not False})


class CountsSuccess(EchoEnv):
    def step(self, action: Action) -> Step:
        step = super().step(action)
        success = {k: int(cast("bool", v)) for k, v in step.info.items() if k == "success"}
        return replace(step, info={**step.info, **success})


class EndsTwice(EchoEnv):
    def step(self, action: Action) -> Step:
        step = super().step(action)
        return replace(step, truncated=step.terminated or step.truncated)


class GoesOnAfterTheEnd(EchoEnv):
    def step(self, action: Action) -> Step:
        return Step(observation="still here") if self._is_over else super().step(action)


class KeepsQuietAboutNonsense(EchoEnv):
    def step(self, action: Action) -> Step:
        step = super().step(action)
        return replace(step, info={k: v for k, v in step.info.items() if k != "invalid_action"})


class ChokesOnNothing(EchoEnv):
    def step(self, action: Action) -> Step:
        return super().step(action if str(action).split()[0] else "")


class ClosesOnce(EchoEnv):
    def close(self) -> None:
        del self._words


class ClosesForGood(EchoEnv):
    def reset(self, task: Task) -> Observation | str:
        if self._words == ("closed",):
            raise ConnectionError("the server is gone")
        return super().reset(task)

    def close(self) -> None:
        self._words = ("closed",)


# --- abilities ------------------------------------------------------------------------------------

Snapshot = tuple[tuple[str, ...], tuple[str, ...], int, bool]


class RestoresTheWrongClock(ShowsTheClock):
    def restore(self, snapshot: Snapshot) -> None:
        words, said, turn, is_over = snapshot
        super().restore((words, said, turn + 1, is_over))


class PlaysOnItsSnapshot(EchoEnv):
    def snapshot(self) -> object:
        return self._words, list(self._said), self._turn, self._is_over

    def restore(self, snapshot: Snapshot) -> None:
        super().restore(snapshot)
        self._said = cast("list[str]", snapshot[1])


class KeysAreCoarse(EchoEnv):
    """They tell the splits apart, but not the words."""

    def tasks(self, split: Split) -> Sequence[Task]:
        return super().tasks(split)[::4]

    def state_key(self) -> str:
        first, second = (WORDS.index(word) for word in self._words)
        return f"{(6 * first + second) % 4}/{len(self._said)}"


class AskingTakesATurn(ShowsTheClock):
    def expert_action(self) -> str:
        self._turn += 1
        return super().expert_action()


class ExpertGuesses(EchoEnv):
    def expert_action(self) -> str:
        return "fox"


class ExpertShouts(EchoEnv):
    def expert_action(self) -> str:
        return super().expert_action().upper()

    def step(self, action: Action) -> Step:
        step = super().step(str(action).lower())
        is_loud = str(action).isupper()
        return replace(step, info={**step.info, "invalid_action": True}) if is_loud else step


class LegalIsNot(EchoEnv):
    def legal_actions(self) -> list[str]:
        return ["gnu"]


@dataclass(kw_only=True)
class ToolEnv(EchoEnv):
    """Keeps its promises, tools included; `required` and `names` can spoil them."""

    required: str = "word"
    names: tuple[str, ...] = ("say", "look")

    def tools(self, task: Task) -> list[dict[str, object]]:
        schema = {
            "type": "object",
            "properties": {"word": {"type": "string"}},
            "required": [self.required],
        }
        return [{"name": name, "description": name, "parameters": schema} for name in self.names]


@dataclass(kw_only=True)
class ToolLacksItsProperty(ToolEnv):
    required: str = "wrod"


class ChecksInNumbers(EchoEnv):
    def check(self, goal: str) -> bool | None:
        return len(self._said)  # type: ignore[return-value]


# --- among others ---------------------------------------------------------------------------------


class KnowsItsThread(EchoEnv):
    def _observe(self) -> str:
        is_main = threading.current_thread() is threading.main_thread()
        return f"{super()._observe()} {'here' if is_main else 'there'}"


class ShowsAHash(EchoEnv):
    def _observe(self) -> str:
        return f"{super()._observe()} {hash(self._words)}"


class KeyOfThisProcess(EchoEnv):
    def state_key(self) -> str:
        return str(hash(super().state_key()))


class StateOfTheClass(EchoEnv):
    shared: ClassVar[list[str]] = []

    def reset(self, task: Task) -> Observation | str:
        self.shared.clear()
        shown = super().reset(task)
        self._said = self.shared
        return shown


class DrawsFromEveryonesDice(EchoEnv):
    def step(self, action: Action) -> Step:
        random.random()
        return super().step(action)


class LeavesAThread(EchoEnv):
    def __post_init__(self) -> None:
        super().__post_init__()
        self._thread: threading.Thread | None = None

    def reset(self, task: Task) -> Observation | str:
        if self._thread is None:
            self._thread = threading.Thread(target=WAKE.wait, args=(60,), name="env", daemon=True)
            self._thread.start()
        return super().reset(task)


class WaitsForever(EchoEnv):
    timeout_s: ClassVar[float] = math.inf
