"""The checker passes every registered env and names the fault of each bad one."""

import random
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest

from agentrl.core import registry
from agentrl.core.protocols import RunsIn
from agentrl.core.types import Action, Observation, Split, Step, Task
from agentrl.evaluate.check_env import CHECKS, CheckReport, Status, check_env
from support import (
    WAKE,
    AsyncEchoEnv,
    BadEnv,
    EchoEnv,
    PlainEnv,
    ProcessBadEnv,
    ProcessEchoEnv,
    ThreadBadEnv,
)


def failed(report: CheckReport) -> dict[str, str]:
    """Name and reason of each check that failed."""
    return {result.name: result.reason for result in report.of(Status.FAIL)}


@pytest.mark.parametrize("name", registry.names("env"))
def test_every_registered_env_keeps_its_promises(name: str) -> None:
    report = check_env(registry.find("env", name)())
    assert failed(report) == {}
    assert report.env == name
    assert len(report.results) == len(CHECKS) >= 10


@pytest.fixture(autouse=True)
def sleepers_wake() -> Iterator[None]:
    """Threads that hang go on when their test is over."""
    yield
    WAKE.set()
    for thread in threading.enumerate():
        if thread.name.startswith(("env ", "check-env")):
            thread.join(5)
    WAKE.clear()


@pytest.mark.parametrize("kind", [EchoEnv, AsyncEchoEnv, ProcessEchoEnv])
def test_an_env_with_every_ability_passes_every_check(kind: type[EchoEnv]) -> None:
    report = check_env(kind(), tasks=2)
    assert [(r.name, r.reason) for r in report.results if r.status is not Status.PASS] == []
    assert report.passed


def test_what_an_env_cannot_do_is_skipped_with_the_reason() -> None:
    report = check_env(PlainEnv("yes"))
    assert report.passed
    assert {result.name: result.reason for result in report.of(Status.SKIP)} == {
        "snapshot equals replay": "it has no snapshot and no restore",
        "state keys hold in other processes": "it has no state_key",
        "the expert solves tasks": "it has no expert_action",
        "legal actions are valid": "it has no legal_actions",
    }


def test_the_lines_count_and_write_a_long_reason_out_once() -> None:
    lines = check_env(BadEnv(fault="garbage", at="reset")).lines()
    assert lines[0] == "pass  tasks exist                         18 in train, 5 read twice"
    assert sum("expected reset to return an Observation" in line for line in lines) == 1
    assert sum(line.endswith("as above") for line in lines) == 12
    assert lines[-1] == "BadEnv: 2 pass, 13 fail, 0 skip"


# --- one fault each -------------------------------------------------------------------------------


class IdsRepeat(EchoEnv):
    def tasks(self, split: Split) -> Sequence[Task]:
        return [replace(task, id="same") for task in super().tasks(split)]


class TasksChange(EchoEnv):
    def tasks(self, split: Split) -> Sequence[Task]:
        tasks = list(super().tasks(split))
        random.shuffle(tasks)
        return tasks


class NoTasks(EchoEnv):
    def tasks(self, split: Split) -> Sequence[Task]:
        return []


class TasksAreStrings(EchoEnv):
    def tasks(self, split: Split) -> Sequence[Task]:
        return ["cat", "dog"]  # type: ignore[list-item]


class TasksRaise(EchoEnv):
    def tasks(self, split: Split) -> Sequence[Task]:
        raise FileNotFoundError("words.txt")


class TasksHang(EchoEnv):
    timeout_s: ClassVar[float] = 0.2

    def tasks(self, split: Split) -> Sequence[Task]:
        WAKE.wait(60)
        return super().tasks(split)


class DataIsNoJson(EchoEnv):
    def tasks(self, split: Split) -> Sequence[Task]:
        odd: dict[str, object] = {"seen": {1}}
        return [replace(t, data={**t.data, **odd}) for t in super().tasks(split)]  # type: ignore[dict-item]


class DataChangesInJson(EchoEnv):
    def tasks(self, split: Split) -> Sequence[Task]:
        return [replace(t, data={**t.data, "pair": (1, 2)}) for t in super().tasks(split)]


class ShowsNothing(EchoEnv):
    def reset(self, task: Task) -> str:
        super().reset(task)
        return ""


class NowhereToRun(EchoEnv):
    runs_in: ClassVar[RunsIn] = "fibre"  # type: ignore[assignment]


class GlobalRandomness(EchoEnv):
    def _observe(self) -> str:
        return f"{super()._observe()} {random.random()}"


class RemembersTheLastEpisode(EchoEnv):
    def __post_init__(self) -> None:
        super().__post_init__()
        self._episodes = 0

    def reset(self, task: Task) -> Observation | str:
        self._episodes += 1
        return f"{super().reset(task)} (episode {self._episodes})"


class ForgetsSuccess(EchoEnv):
    def step(self, action: Action) -> Step:
        step = super().step(action)
        return replace(step, info={k: v for k, v in step.info.items() if k != "success"})


class EndsTwice(EchoEnv):
    def step(self, action: Action) -> Step:
        step = super().step(action)
        return replace(step, truncated=step.terminated)


class GoesOnAfterTheEnd(EchoEnv):
    def step(self, action: Action) -> Step:
        return Step(observation="still here") if self._is_over else super().step(action)


class ChokesOnNonsense(EchoEnv):
    def step(self, action: Action) -> Step:
        if action not in self.legal_actions():
            raise KeyError(action)
        return super().step(action)


class KeepsQuietAboutNonsense(EchoEnv):
    def step(self, action: Action) -> Step:
        return replace(super().step(action), info={"success": False})


class ClosesOnce(EchoEnv):
    def close(self) -> None:
        del self._words


class SplitsOverlap(EchoEnv):
    def tasks(self, split: Split) -> Sequence[Task]:
        mine = super().tasks(split)
        return (
            [*mine, replace(super().tasks("train")[3], id="echo/again")]
            if split == "test"
            else mine
        )


class RestoresHalf(EchoEnv):
    def restore(self, snapshot: tuple[tuple[str, ...], tuple[str, ...], int, bool]) -> None:
        said = self._said
        super().restore(snapshot)
        self._said = said


class RestoresTheWrongClock(EchoEnv):
    """Right at once, wrong later: the cap comes too early."""

    def legal_actions(self) -> list[str]:
        return ["hm"]

    def step(self, action: Action) -> Step:
        step = super().step(action)
        return replace(step, info={k: v for k, v in step.info.items() if k != "invalid_action"})

    def restore(self, snapshot: tuple[tuple[str, ...], tuple[str, ...], int, bool]) -> None:
        super().restore((*snapshot[:2], snapshot[2] + 1, snapshot[3]))


class KeyOfThisProcess(EchoEnv):
    def state_key(self) -> str:
        return str(hash(super().state_key()))


class ExpertGuesses(EchoEnv):
    def expert_action(self) -> str:
        return "fox"


class LegalIsNot(EchoEnv):
    def legal_actions(self) -> list[str]:
        return ["gnu"]


@pytest.mark.parametrize(
    ("kind", "check", "reason"),
    [
        (IdsRepeat, "tasks exist", "task ids must be unique"),
        (TasksChange, "tasks exist", "other tasks when asked again"),
        (NoTasks, "tasks exist", "tasks('train') is empty"),
        (TasksAreStrings, "tasks exist", "must hold Task objects, got 'cat'"),
        (TasksRaise, "tasks exist", "raised FileNotFoundError: words.txt"),
        (TasksHang, "tasks exist", "gave no 5 tasks within 0.2 s: make it lazy"),
        (DataIsNoJson, "tasks can be stored", "set is not JSON serializable"),
        (DataChangesInJson, "tasks can be stored", "reads back from JSON as {'words'"),
        (ShowsNothing, "reset shows something", "neither text nor picture"),
        (NowhereToRun, "runs where it says", "no runner is called 'fibre'"),
        (GlobalRandomness, "same task same episode", "two copies show task echo/0 differently"),
        (RemembersTheLastEpisode, "same task same episode", "differently after another episode"),
        (ForgetsSuccess, "the end says success", "must set info['success'] to True or False"),
        (EndsTwice, "the end says success", "both terminated and truncated"),
        (GoesOnAfterTheEnd, "step after the end raises", "must raise RuntimeError"),
        (ChokesOnNonsense, "nonsense is survived", "raised KeyError"),
        (KeepsQuietAboutNonsense, "nonsense is survived", "its info has no 'invalid_action': True"),
        (ClosesOnce, "closes twice", "close raised AttributeError"),
        (
            SplitsOverlap,
            "splits are disjoint",
            "1 of 10 starts of test are also in train, such as task echo/again, which is echo/5",
        ),
        (RestoresHalf, "snapshot equals replay", "restore in task echo/0 changes the key"),
        (
            RestoresTheWrongClock,
            "snapshot equals replay",
            "turn 3 of task echo/0 differs in its observation",
        ),
        (KeyOfThisProcess, "state keys hold in other processes", "use hashlib"),
        (ExpertGuesses, "the expert solves tasks", "the expert solves 0 of 5 tasks"),
        (LegalIsNot, "legal actions are valid", "'gnu' is legal in task echo/"),
    ],
)
def test_a_broken_promise_is_named(kind: type[EchoEnv], check: str, reason: str) -> None:
    report = check_env(kind())
    assert not report.passed
    assert reason in failed(report).get(check, "")


def test_most_faults_fail_one_check_only() -> None:
    for kind in (IdsRepeat, DataIsNoJson, EndsTwice, SplitsOverlap, LegalIsNot, ExpertGuesses):
        assert len(failed(check_env(kind(), tasks=3))) == 1, kind


# --- envs that break ------------------------------------------------------------------------------


def test_a_nan_reward_is_named_with_its_turn() -> None:
    assert failed(check_env(BadEnv(fault="nan"))) == {
        "rewards are finite": "turn 0 of task echo/0 is rewarded nan"
    }


def test_a_hanging_env_is_cut_and_then_left_alone() -> None:
    began = time.monotonic()
    report = check_env(ThreadBadEnv(fault="hang"), timeout_s=0.2)
    assert time.monotonic() - began < 5
    assert all("did not answer within 0.2 s" in reason for reason in failed(report).values())
    assert len(failed(report)) == 2
    assert {r.reason for r in report.of(Status.SKIP)} == {"the env hung in the checks before"}


def test_an_env_that_kills_its_process_is_told_and_the_checker_lives() -> None:
    reasons = failed(check_env(ProcessBadEnv(fault="exit", after=3), tasks=2))
    assert set(reasons.values()) == {"env ProcessBadEnv: its process exited with 3 during step"}


def test_an_episode_without_end_is_no_fault_but_leaves_checks_undone() -> None:
    @dataclass(kw_only=True)
    class Endless(PlainEnv):
        word: str = "yes"

        def step(self, action: Action) -> Step:
            return Step(observation="go on")

    report = check_env(Endless())
    assert report.passed
    skipped = {result.name for result in report.of(Status.SKIP)}
    assert {"the end says success", "step after the end raises"} <= skipped


def test_rewards_are_reported_as_a_range() -> None:
    report = check_env(EchoEnv(length=1))
    reason = {result.name: result.reason for result in report.results}["rewards are finite"]
    assert [float(word) for word in reason.split(" to ")] == [1.0, 1.0]
