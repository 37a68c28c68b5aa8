"""A full disk: nothing that was written is lost, training goes on, and what waits is written."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Literal

import pytest

from agentrl.core import registry
from agentrl.core.errors import CheckpointError, ConfigError, TrainingError
from agentrl.core.types import Split, Task
from agentrl.track.trajectories import EpisodeRecord
from agentrl.train.checkpoint import Checkpoints, step_of, verify
from agentrl.train.loop import train
from agentrl.train.outbox import Outbox
from support.chatter import ChatterEnv
from support.disks import room
from support.fault_log import FaultLog
from support.same import differences
from support.whole_runs import tiny, training_envs

__all__ = ["training_envs"]
pytestmark = pytest.mark.usefixtures("training_envs")
SETTINGS = ("checkpoint.every=1", "checkpoint.keep=9", "run.steps=4", "eval.every=1")
DEADLINE_S = 2.0
"""Seconds between a disk that is full and the word about each file that this hits: a step's
evaluation lies between the metrics and the checkpoint."""


@pytest.fixture(autouse=True)
def room_again() -> Iterator[None]:
    yield
    room(-1)


@dataclass(kw_only=True)
class FullFrom:
    """A sink after which the disk is full from step `first` on, until step `last` is logged: from
    its metrics on, or only after its evaluation."""

    first: int
    last: int
    after: Literal["metrics", "evaluation"] = "metrics"
    filled: float = 0.0
    """When it was full, as `time.time()`."""
    said: list[tuple[str, float]] = field(default_factory=list)

    def noticed_s(self, text: str) -> float:
        """Seconds after which the run said `text`, which it says once."""
        [at] = [at for said, at in self.said if text in said]
        return at - self.filled

    def open(self, folder: Path, name: str, total_steps: int, *, resumed: int = 0) -> None: ...

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self._fill(step, "metrics")
        if step == self.last:
            room(-1)

    def say(self, text: str) -> None:
        self.said.append((text, time.time()))

    def episodes(self, step: int, episodes: Sequence[EpisodeRecord]) -> None: ...

    def evaluation(self, step: int, name: str, numbers: Mapping[str, float]) -> None:
        self._fill(step, "evaluation")

    def close(self) -> None:
        room(-1)

    def _fill(self, step: int, after: str) -> None:
        if (step, after) == (self.first, self.after):
            self.filled = time.time()
            room(1)


@pytest.fixture(autouse=True)
def full_sink(monkeypatch: pytest.MonkeyPatch) -> None:
    registry.names("track")
    monkeypatch.setitem(registry._parts["track"], "full-from", FullFrom)


def keep(log: FaultLog, what: str, place: str, seconds: float, *, counted: str, then: str) -> None:
    row = {"deadline_s": DEADLINE_S, "noticed_s": seconds}
    log.row("disk", what, f"whole run, {place}", **row, counted=counted, then=then)


@pytest.mark.parametrize(
    ("full", "file", "checkpoints"),
    [
        (FullFrom(first=2, last=3), "evals.jsonl", [0, 1, 3, 4]),
        pytest.param(
            FullFrom(first=1, last=2, after="evaluation"),
            "train-000002.parquet",
            [0, 2, 3, 4],
            marks=pytest.mark.slow,
        ),
    ],
    ids=["from the metrics on", "from the checkpoint on"],
)
def test_a_disk_that_is_full_for_a_step_costs_that_checkpoint_and_nothing_else(
    full: FullFrom,
    file: str,
    checkpoints: list[int],
    tmp_path: Path,
    fault_log: FaultLog,
    caplog: pytest.LogCaptureFixture,
) -> None:
    straight = train(tiny(tmp_path / "a", *SETTINGS))
    config = tiny(tmp_path / "b", *SETTINGS)
    folder = train(replace(config, track=(full, *config.track)))
    assert differences(straight, folder) == []
    steps = [step_of(path) for path in Checkpoints(folder=folder / "checkpoints").complete()]
    assert steps == checkpoints
    assert full.noticed_s("the files that were waiting are written") > 0
    what = f"full from a step's {full.after} to the next step"
    for place, text, counted in (
        ("checkpoint", f"the checkpoint of step {full.first} could not be written", "1 checkpoint"),
        (file, f"{file} could not be written", "none: the file waited"),
    ):
        then = "4 steps trained, all other files as without the fault"
        keep(fault_log, what, place, full.noticed_s(text), counted=counted, then=then)
    logged = [r.created for r in caplog.records if "metrics.jsonl cannot be writ" in r.getMessage()]
    if full.after == "metrics":
        [at] = logged
        counted, then = "none: the line waited", "4 steps trained and logged"
        seconds = at - full.filled
        keep(fault_log, what, "metrics.jsonl", seconds, counted=counted, then=then)


@pytest.mark.slow
def test_a_disk_that_stays_full_ends_the_run_and_the_run_goes_on_later(
    tmp_path: Path, fault_log: FaultLog
) -> None:
    straight = train(tiny(tmp_path / "a", *SETTINGS))
    config = tiny(tmp_path / "b", *SETTINGS)
    full = FullFrom(first=3, last=99)
    with pytest.raises(CheckpointError, match=r"the newest whole one is step-000002\. Free some"):
        train(replace(config, track=(full, *config.track)))
    room(-1)
    checkpoints = Checkpoints(folder=tmp_path / "b" / "tiny" / "checkpoints")
    newest = checkpoints.newest()
    assert newest is not None
    verify(newest)
    assert differences(straight, train(config, "auto")) == []
    keep(
        fault_log,
        "full from step 3 of 4 on",
        "checkpoint",
        full.noticed_s("the checkpoint of step 3 could not be written"),
        counted="2 checkpoints: the last is an error",
        then="resumed from step 2, the run equals one without the fault",
    )


@dataclass(kw_only=True)
class FillingEnv(ChatterEnv):
    """The disk is full from when a run asks for its train tasks: just before a run that goes on
    makes its folder ready."""

    is_filling: ClassVar[bool] = False
    filled: ClassVar[float] = 0.0

    def tasks(self, split: Split) -> Sequence[Task]:
        if split == "train" and self.is_filling:
            room(1)
            type(self).filled = time.time()
        return super().tasks(split)


def test_a_disk_that_is_full_when_a_run_goes_on_leaves_its_folder_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault_log: FaultLog
) -> None:
    monkeypatch.setitem(registry._parts["env"], "chatter", FillingEnv)
    settings = ("checkpoint.every=1", "eval.every=0", "eval.final_tasks=0", "run.steps=2")
    config = tiny(tmp_path, *settings)
    written = train(config) / "config.yaml"
    before = written.read_text()
    monkeypatch.setattr(FillingEnv, "is_filling", True)
    with pytest.raises(ConfigError, match=r"cannot be written .* free some space"):
        train(config, "auto")
    seconds = time.time() - FillingEnv.filled
    room(-1)
    monkeypatch.setattr(FillingEnv, "is_filling", False)
    assert written.read_text() == before
    train(config, "auto")
    what = "full when a run goes on"
    then = "the folder as it was; the run goes on once there is room"
    keep(fault_log, what, "config.yaml", seconds, counted="an error", then=then)


def test_files_wait_in_order_and_a_run_is_not_done_before_they_are_written() -> None:
    said: list[str] = []
    outbox = Outbox(say=said.append)
    written: list[str] = []
    is_full = True

    def write(name: str) -> None:
        if is_full:
            raise OSError(28, "No space left on device")
        written.append(name)

    outbox.write("a", lambda: write("a"))
    outbox.write("b", lambda: write("b"))
    assert outbox.waiting == 2
    assert len(said) == 1
    assert "a could not be written ([Errno 28] No space left on device)" in said[0]
    with pytest.raises(TrainingError, match="2 file\\(s\\) of the run could not be written"):
        outbox.flush()
    is_full = False
    outbox.write("c", lambda: write("c"))
    assert written == ["a", "b", "c"]
    outbox.flush()


def test_a_folder_for_runs_that_is_a_file_is_refused_by_its_key(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(ConfigError, match=r"run\.folder: \S+taken is not a folder .* choose"):
        train(tiny(tmp_path, f"run.folder={tmp_path / 'taken'}"))
    assert (tmp_path / "taken").read_text() == "a file"
