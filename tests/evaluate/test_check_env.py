"""The checker passes every registered env and names the fault of each bad one."""

import json
import random
import re
import resource
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest

from agentrl.core import registry
from agentrl.core.errors import ConfigError
from agentrl.core.protocols import Env
from agentrl.core.types import Action, Observation, Split, Step, Task
from agentrl.envs.elsewhere import Elsewhere
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
from support import broken_promises as broken
from support.extras import JAVA, needed_by


def failed(report: CheckReport) -> dict[str, str]:
    """Name and reason of each check that failed."""
    return {result.name: result.reason for result in report.of(Status.FAIL)}


FETCHED = {"bfcl"}
"""Environments whose data is no part of this package and may be absent."""


def skip_without_data(env: Env) -> None:
    try:
        env.tasks(env.splits[0])
    except ConfigError as error:
        pytest.skip(str(error))


ON_A_SCREEN = {"androidworld", "browsergym", "desktop", "miniwob", "webapps"}
"""Environments whose own tests check them, beside a Chromium or what else they need."""
PLAYED = [
    name
    for name in registry.names("env")
    if not issubclass(registry.find("env", name), Elsewhere) and name not in ON_A_SCREEN
]


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=needed_by(n)) for n in PLAYED if n not in JAVA]
)
def test_every_registered_env_keeps_its_promises(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    before = cpu_seconds()
    env = registry.find("env", name)()
    if name in FETCHED:
        skip_without_data(env)
    report = check_env(env, tasks=3)
    assert failed(report) == {}
    assert report.env == name
    assert len(report.results) == len(CHECKS) >= 20
    assert cpu_seconds() - before < 10, "a verdict takes 10 s at most on an idle core"


def cpu_seconds() -> float:
    """What this process and those that it ended have computed."""
    spent = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in spent)


@pytest.fixture(autouse=True)
def sleepers_wake() -> Iterator[None]:
    """Threads that hang go on when their test is over."""
    yield
    WAKE.set()
    for thread in threading.enumerate():
        if thread.name.startswith(("env ", "check-env")):
            thread.join(5)
    WAKE.clear()


NEEDS_TOOLS = {"tools are json schemas"}
NEEDS_THIS_PROCESS = {
    "every runner gives the same episode",
    "global randomness is untouched",
    "closing gives back what was open",
}


@pytest.mark.parametrize(
    ("env", "skipped"),
    [
        (broken.ToolEnv(), set()),
        (AsyncEchoEnv(), NEEDS_TOOLS),
        (ProcessEchoEnv(), NEEDS_TOOLS | NEEDS_THIS_PROCESS),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_env_with_every_ability_passes_every_check(env: EchoEnv, skipped: set[str]) -> None:
    report = check_env(env, tasks=2)
    assert failed(report) == {}
    assert {result.name for result in report.of(Status.SKIP)} == skipped
    assert report.passed


def test_what_an_env_cannot_do_is_skipped_with_the_reason() -> None:
    report = check_env(PlainEnv("yes"), may_spawn=False)
    assert report.passed
    assert {result.name: result.reason for result in report.of(Status.SKIP)} == {
        "another task is another episode": "there is one task only",
        "snapshot equals replay": "it has no snapshot and no restore",
        "restore leaves the snapshot alone": "it has no snapshot and no restore",
        "state keys tell states apart": "it has no state_key",
        "looking changes nothing": "there is nothing to ask",
        "the expert solves tasks": "it has no expert_action",
        "expert actions are valid": "it has no expert_action",
        "legal actions are valid": "it has no legal_actions",
        "tools are json schemas": "it has no tools",
        "goals hold or not": "it has no check",
        "another process gives the same episode": "no process may be started",
        "state keys hold in other processes": "it has no state_key",
    }


def test_the_lines_count_and_write_a_long_reason_out_once() -> None:
    lines = check_env(BadEnv(fault="garbage", at="reset"), may_spawn=False).lines()
    assert lines[0] == "pass  tasks exist                             18 in train"
    assert sum("env BadEnv: expected reset to return" in line for line in lines) == 1
    assert sum(line.endswith("  as in: runs where it says") for line in lines) > 20
    assert re.fullmatch(r"BadEnv: 6 pass, 31 fail, 3 skip in \d+\.\d s", lines[-1])


# --- one fault each -------------------------------------------------------------------------------

BROKEN: list[tuple[type[EchoEnv], str, str]] = [
    (broken.NoTasks, "tasks exist", "none: it is empty"),
    (broken.IdsRepeat, "task ids are unique", "18 tasks that share theirs: echo/0, echo/1"),
    (broken.TasksChange, "tasks come again", "when asked again"),
    (broken.EveryTaskInMemory, "tasks are lazy", "a list of 20108"),
    (broken.DataIsNoJson, "tasks survive json", "set is not JSON serializable"),
    (broken.TasksStayAtHome, "tasks survive pickling", "cannot pickle 'mappingproxy' object"),
    (broken.NowhereToRun, "runs where it says", "no runner is called 'fibre'"),
    (broken.ShowsNothing, "reset shows something", "an empty observation (reset of task echo/0)"),
    (broken.ShowsRawBytes, "text can be encoded", "surrogates not allowed"),
    (broken.KnowsItsNumber, "same task same episode", "a second copy to begin with"),
    (broken.OneEpisodeForAll, "another task is another episode", "let reset use task.seed"),
    (
        broken.RemembersWhatWasBrokenOff,
        "reset forgets what was played",
        "after one that was broken off",
    ),
    (broken.SpoilsItsTasks, "tasks are left alone", "copy what task.data holds"),
    (broken.PaysNothingButNaN, "rewards are finite", "got nan (turn 0 of task echo/0)"),
    (broken.MeasuresInWords, "metrics are numbers", "got said='two' (turn 0 of task echo/0)"),
    (broken.KeepsQuietAboutDefeat, "the end says success", "got info with metrics (turn 1"),
    (broken.CountsSuccess, "success is true or false", "got int 1 (turn 1 of task echo/0)"),
    (broken.EndsTwice, "an episode ends in one way", "got both (turn 1 of task echo/0)"),
    (broken.GoesOnAfterTheEnd, "step after the end raises", "expected RuntimeError"),
    (broken.KeepsQuietAboutNonsense, "nonsense is flagged", "set info['invalid_action'] = True"),
    (broken.ChokesOnNothing, "odd text is survived", "IndexError: list index out of range"),
    (broken.ClosesOnce, "closes twice", "close raised AttributeError"),
    (broken.ClosesForGood, "reset opens what was closed", "ConnectionError: the server is gone"),
    (
        broken.SplitsOverlap,
        "splits are disjoint",
        "got 1 of 10 (overlaps: train/dev 0, train/test 1, dev/test 0) (task echo/again of test "
        "begins as task echo/5 of train)",
    ),
    (broken.RestoresTheWrongClock, "snapshot equals replay", "the episode after a restore to give"),
    (
        broken.PlaysOnItsSnapshot,
        "restore leaves the snapshot alone",
        "copy lists and dicts in restore",
    ),
    (broken.KeysAreCoarse, "state keys tell states apart", "got the key '0/0' for both"),
    (
        broken.AskingTakesATurn,
        "looking changes nothing",
        "snapshot asked in between to give",
    ),
    (broken.ExpertGuesses, "the expert solves tasks", "got 0 of 3 tasks"),
    (broken.ExpertShouts, "expert actions are valid", "turn 0 of task echo/0"),
    (broken.LegalIsNot, "legal actions are valid", "such as 'gnu'"),
    (broken.ToolLacksItsProperty, "tools are json schemas", "required wrod without property"),
    (broken.ChecksInNumbers, "goals hold or not", "got int 0 (check('') in task echo/0)"),
    (broken.KnowsItsThread, "every runner gives the same episode", "the inline runner to give"),
    (broken.ShowsAHash, "another process gives the same episode", "sort sets before using them"),
    (broken.KeyOfThisProcess, "state keys hold in other processes", "use hashlib"),
    (broken.StateOfTheClass, "copies share nothing", "not in the class or module"),
    (broken.DrawsFromEveryonesDice, "global randomness is untouched", "a changed state of random"),
    (broken.LeavesAThread, "closing gives back what was open", "stop threads and close files"),
    (broken.WaitsForever, "a hanging step is cut", "WaitsForever.timeout_s"),
]
IN_PROCESSES = ("another process gives the same episode", "state keys hold in other processes")


@pytest.mark.parametrize(("kind", "check", "reason"), BROKEN, ids=lambda value: str(value)[:60])
def test_a_broken_promise_is_named_by_its_check_alone(
    kind: type[EchoEnv], check: str, reason: str
) -> None:
    report = check_env(kind(), tasks=3, may_spawn=check in IN_PROCESSES)
    assert list(failed(report)) == [check]
    assert reason in failed(report)[check]
    [found] = report.of(Status.FAIL)
    assert all((found.promise, found.expected, found.seen, found.mend))


def test_every_check_has_an_env_that_only_it_catches() -> None:
    assert [check for _, check, _ in BROKEN] == [c.__name__.replace("_", " ") for c in CHECKS]


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


class TasksTakeLong(EchoEnv):
    timeout_s: ClassVar[float] = 0.4

    def tasks(self, split: Split) -> Sequence[Task]:
        time.sleep(0.21 if split == "train" else 0.0)
        return super().tasks(split)


class DataChangesInJson(EchoEnv):
    def tasks(self, split: Split) -> Sequence[Task]:
        return [replace(t, data={**t.data, "pair": (1, 2)}) for t in super().tasks(split)]


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


class ChokesOnNonsense(EchoEnv):
    def step(self, action: Action) -> Step:
        if action not in self.legal_actions():
            raise KeyError(action)
        return super().step(action)


class RestoresHalf(EchoEnv):
    def restore(self, snapshot: tuple[tuple[str, ...], tuple[str, ...], int, bool]) -> None:
        said = self._said
        super().restore(snapshot)
        self._said = said


class KeysAreNumbers(EchoEnv):
    def state_key(self) -> str:
        return len(super().state_key())  # type: ignore[return-value]


class OneKeyForAll(EchoEnv):
    def state_key(self) -> str:
        return "here"


class NothingIsLegal(EchoEnv):
    def legal_actions(self) -> list[str]:
        return []


@pytest.mark.parametrize(
    ("env", "check", "reason"),
    [
        (TasksAreStrings(), "tasks exist", "expected tasks() to hold Task objects, got 'cat'"),
        (TasksRaise(), "tasks exist", "got FileNotFoundError: words.txt"),
        (TasksHang(), "tasks exist", "gave no 5 tasks within 0.2 s"),
        (TasksTakeLong(), "tasks are lazy", "the first task of train within 0.2 s, got 0.2"),
        (DataChangesInJson(), "tasks survive json", "data that reads back from JSON as {'words'"),
        (GlobalRandomness(), "same task same episode", "expected a second copy to begin with"),
        (RemembersTheLastEpisode(), "reset forgets what was played", "after another episode"),
        (ForgetsSuccess(), "the end says success", "set info['success'] to True or False"),
        (ChokesOnNonsense(), "nonsense is flagged", "raised KeyError"),
        (ChokesOnNonsense(), "odd text is survived", "step with an empty action"),
        (RestoresHalf(), "snapshot equals replay", "restore to bring back the state key"),
        (KeysAreNumbers(), "state keys tell states apart", "state_key() to return a str, got int"),
        (OneKeyForAll(), "splits are disjoint", "overlaps: train/dev 1, train/test 1, dev/test 1"),
        (NothingIsLegal(), "legal actions are valid", "until the episode is over, got []"),
        (broken.ToolEnv(names=("say", "say")), "tools are json schemas", "the names say, say"),
        (broken.ToolEnv(names=("s p",)), "tools are json schemas", "the name 's p'"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, EchoEnv) else str(value)[:40],
)
def test_a_broken_promise_is_named(env: EchoEnv, check: str, reason: str) -> None:
    report = check_env(env, tasks=5 if check == "tasks exist" else 3, may_spawn=False)
    assert not report.passed
    assert reason in failed(report).get(check, "")


def test_a_task_s_json_and_the_report_s_own_say_the_same(tmp_path: Path) -> None:
    report = check_env(broken.ExpertGuesses(), tasks=2, may_spawn=False)
    told = json.loads(json.dumps(report.to_json()))
    assert (told["env"], told["passed"], told["counts"]["fail"]) == ("ExpertGuesses", False, 1)
    assert len(told["checks"]) == len(CHECKS)
    [found] = [check for check in told["checks"] if check["status"] == "fail"]
    assert found["name"] == "the expert solves tasks"
    assert found["expected"] == "the expert to solve 80% of its tasks"
    assert found["seen"] == "0 of 2 tasks, not echo/0, echo/1"
    assert "no expert_action" in found["mend"]


def test_a_failure_is_written_out_below_its_line() -> None:
    lines = check_env(broken.CountsSuccess(), tasks=2, may_spawn=False).lines(80)
    at = lines.index("FAIL  success is true or false")
    assert lines[at + 1 : at + 5] == [
        "      expected  True or False as info['success']",
        "      got       int 1",
        "      where     turn 1 of task echo/0",
        "      mend      wrap it: bool(...)",
    ]
    assert max(map(len, lines[at : at + 5])) <= 80


# --- envs that break ------------------------------------------------------------------------------


def test_a_nan_reward_is_named_with_its_turn() -> None:
    [reason] = failed(check_env(BadEnv(fault="nan"), tasks=2, may_spawn=False)).values()
    assert reason.startswith("expected a finite reward, got nan (turn 0 of task echo/0): guard")


def test_a_hanging_env_is_cut_and_then_left_alone() -> None:
    began = time.monotonic()
    report = check_env(ThreadBadEnv(fault="hang"), timeout_s=0.2, may_spawn=False)
    assert time.monotonic() - began < 5
    assert all("did not answer within 0.2 s" in reason for reason in failed(report).values())
    assert len(failed(report)) == 2
    reasons = {r.reason for r in report.of(Status.SKIP)}
    assert reasons == {"the env hung or died in the checks before"}


def test_an_env_that_kills_its_process_is_told_and_the_checker_lives() -> None:
    report = check_env(ProcessBadEnv(fault="exit", after=3), tasks=2)
    dead = "env ProcessBadEnv: its process exited with 3 during step"
    assert {r.seen for r in report.of(Status.FAIL)} == {dead}
    assert "the env hung or died in the checks before" in {r.seen for r in report.of(Status.SKIP)}


def test_an_episode_without_end_is_no_fault_but_leaves_checks_undone() -> None:
    @dataclass(kw_only=True)
    class Endless(PlainEnv):
        word: str = "yes"

        def step(self, action: Action) -> Step:
            return Step(observation="go on")

    report = check_env(Endless(), may_spawn=False)
    assert report.passed
    skipped = {result.name for result in report.of(Status.SKIP)}
    assert {"the end says success", "step after the end raises"} <= skipped


def test_rewards_are_reported_as_a_range() -> None:
    report = check_env(EchoEnv(length=1), tasks=2, may_spawn=False)
    reason = {result.name: result.reason for result in report.results}["rewards are finite"]
    assert [float(word) for word in reason.split(" to ")] == [0.0, 1.0]
