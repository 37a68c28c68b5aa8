"""A run that was stopped goes on where it was, and ends as if nobody had stopped it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

from agentrl.core import registry
from agentrl.core.errors import CheckpointError, ConfigError
from agentrl.core.types import Json, Task
from agentrl.engines import threads
from agentrl.track.jsonl import read_metrics
from agentrl.train.checkpoint import Checkpoints, verify
from agentrl.train.loop import train
from agentrl.train.resume import take_back
from support.chatter import ChatterEnv
from support.same import differences
from support.stopping import stopped, stopping_sink
from support.whole_runs import tiny, training_envs

__all__ = ["stopping_sink", "training_envs"]
pytestmark = pytest.mark.usefixtures("training_envs")
WARM = ("sft={demos: 4, dev_demos: 2, max_steps: 5}", "env=echo")
KEPT = ("checkpoint.every=1", "checkpoint.keep=9", "run.steps=4", "eval.every=2")


@pytest.mark.parametrize(
    "step", [pytest.param(1, marks=pytest.mark.slow), 3, pytest.param(4, marks=pytest.mark.slow)]
)
def test_a_stopped_run_that_goes_on_equals_one_that_was_never_stopped(
    tmp_path: Path, step: int
) -> None:
    straight = train(tiny(tmp_path / "a", *KEPT))
    config = tiny(tmp_path / "b", *KEPT)
    stopped(config, step)
    assert differences(straight, train(config, "auto")) == []


@pytest.mark.parametrize(
    "settings",
    [
        [*WARM, "kl=k3"],
        pytest.param(["lora.rank=2", "kl=k3"], marks=pytest.mark.slow),
        pytest.param([*WARM, "lora.rank=2", "kl=k3"], marks=pytest.mark.slow),
        pytest.param(
            ["optim.updates_per_batch=2", "optim.epochs=2", "optim.schedule=cosine"],
            marks=pytest.mark.slow,
        ),
        ["entropy={name: adaptive, target: 99}", "strategy=dynamic", "filter=zero_std"],
        ["engine=transformers", "lora.rank=2"],
    ],
    ids=["kl-sft", "lora-kl", "lora-kl-sft", "several-updates", "entropy-dynamic", "slots"],
)
def test_every_kind_of_run_goes_on_exactly(tmp_path: Path, settings: list[str]) -> None:
    straight = train(tiny(tmp_path / "a", *KEPT, *settings))
    config = tiny(tmp_path / "b", *KEPT, *settings)
    stopped(config, 2)
    assert differences(straight, train(config, "auto")) == []


def test_with_several_threads_a_run_goes_on_exactly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "WIDE", 2**17)
    seen = set()
    alone = threads.Passes.run

    def run(self: threads.Passes, tokens: int, work: Callable[[], object]) -> object:
        seen.add(tokens * self.weights >= threads.WIDE)
        return alone(self, tokens, work)

    monkeypatch.setattr(threads.Passes, "run", run)
    torch.set_num_threads(2)
    settings = (*KEPT, "run.steps=2", "engine=transformers")
    straight = train(tiny(tmp_path / "a", *settings))
    config = tiny(tmp_path / "b", *settings)
    stopped(config, 1)
    assert differences(straight, train(config, "auto")) == []
    assert seen == {True, False}, "passes with one thread and with all"


@pytest.mark.slow
def test_a_run_may_be_stopped_again_and_again(tmp_path: Path) -> None:
    straight = train(tiny(tmp_path / "a", *KEPT))
    config = tiny(tmp_path / "b", *KEPT)
    for step in (1, 2, 2, 4):
        stopped(config, step)
    assert differences(straight, train(config, "auto")) == []


def test_what_was_written_later_or_cut_off_by_a_kill_is_taken_back(tmp_path: Path) -> None:
    kept = ["eval-start.parquet", "train-000001.parquet", "train-000001.rank1.parquet"]
    gone = [".eval-final.parquet.4711", "eval-final.parquet", "train-000002.parquet"]
    folder = tmp_path / "trajectories"
    folder.mkdir()
    for name in (*kept, *gone):
        (folder / name).touch()
    take_back(tmp_path, 1)
    assert sorted(path.name for path in folder.iterdir()) == kept


def test_a_run_goes_on_from_an_older_checkpoint_if_told_so(tmp_path: Path) -> None:
    config = tiny(tmp_path, *KEPT)
    straight = shutil.copytree(train(config), tmp_path / "kept")
    train(config, tmp_path / "tiny" / "checkpoints" / "step-000001")
    assert differences(straight, tmp_path / "tiny") == []


def test_resume_auto_begins_where_there_is_nothing_to_go_on_from(tmp_path: Path) -> None:
    folder = train(tiny(tmp_path), "auto")
    assert len(read_metrics(folder)) == 2


def test_a_finished_run_that_is_resumed_only_ends_again(tmp_path: Path) -> None:
    config = tiny(tmp_path, *KEPT)
    straight = shutil.copytree(train(config), tmp_path / "kept")
    assert differences(straight, train(config, "auto")) == []


def test_more_steps_may_be_added_to_a_finished_run(tmp_path: Path) -> None:
    train(tiny(tmp_path))
    folder = train(tiny(tmp_path, "run.steps=3"), "auto")
    assert [line["step"] for line in read_metrics(folder)] == [1, 2, 3]


def test_another_config_is_refused_and_names_each_key_that_differs(tmp_path: Path) -> None:
    folder = train(tiny(tmp_path))
    before = read_metrics(folder)
    with pytest.raises(ConfigError, match=r"optim\.lr: was 0\.001, is 0\.002") as caught:
        train(tiny(tmp_path, "optim.lr=2e-3", "rollout.group_size=2"), "auto")
    assert "rollout.group_size: was 4, is 2" in str(caught.value)
    assert read_metrics(folder) == before
    assert not (tmp_path / "tiny.1").exists()


def test_a_damaged_checkpoint_is_passed_over_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny(tmp_path, *KEPT, "track=[jsonl,console]")
    straight = shutil.copytree(train(config), tmp_path / "kept")
    weights = tmp_path / "tiny" / "checkpoints" / "step-000004" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    capsys.readouterr()
    train(config, "auto")
    said = capsys.readouterr().out
    assert "the content of model.safetensors has changed" in said
    assert "going on after step 3" in said
    assert differences(straight, tmp_path / "tiny") == []


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda p: (p / "model.safetensors").unlink(), "model.safetensors is missing"),
        (lambda p: (p / "state.json").write_text("{"), "state.json has 1 bytes instead of"),
        (lambda p: (p / "manifest.json").write_text("{"), "expected a JSON object"),
        (
            lambda p: (p / "manifest.json").write_text(json.dumps({"schema": 99, "files": {}})),
            "expected schema 2, got 99",
        ),
    ],
    ids=["missing", "cut", "manifest", "schema"],
)
def test_what_is_wrong_with_a_checkpoint_is_said(
    tmp_path: Path, damage: object, message: str
) -> None:
    def write(folder: Path) -> None:
        (folder / "model.safetensors").write_bytes(b"weights")
        (folder / "state.json").write_text("{}")

    path = Checkpoints(folder=tmp_path).save(1, write)
    verify(path)
    damage(path)  # type: ignore[operator]
    with pytest.raises(CheckpointError, match=message):
        verify(path)


def test_only_a_checkpoint_of_the_run_itself_is_taken(tmp_path: Path) -> None:
    other = train(tiny(tmp_path / "other"))
    train(tiny(tmp_path))
    with pytest.raises(ConfigError, match="expected auto, or one of this run's checkpoints"):
        train(tiny(tmp_path), other / "checkpoints" / "step-000002")


@dataclass(kw_only=True)
class Remembering:
    """A curriculum whose choice depends on what it chose before."""

    _seen: list[str] = field(default_factory=list, init=False)

    def next(self, tasks: list[Task], count: int, step: int, seed: int) -> list[Task]:
        first = 3 * len(self._seen) % (len(tasks) - count)
        chosen = [tasks[first + i] for i in range(count)]
        self._seen += [task.id for task in chosen]
        return chosen

    def state(self) -> Json:
        return list(self._seen)

    def restore(self, state: Json) -> None:
        assert isinstance(state, list)
        self._seen[:] = [str(task) for task in state]


def test_parts_with_a_state_get_it_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry.names("curriculum")
    monkeypatch.setitem(registry._parts["curriculum"], "remembering", Remembering)
    settings = [*KEPT, "curriculum=remembering"]
    straight = train(tiny(tmp_path / "a", *settings))
    stopped(tiny(tmp_path / "b", *settings), 3)
    resumed = train(tiny(tmp_path / "b", *settings), "auto")
    assert differences(straight, resumed) == []
    state = json.loads((resumed / "checkpoints" / "step-000004" / "state.json").read_text())
    assert len(state["parts"]["curriculum"]) == 8


@dataclass(kw_only=True)
class SavedEnv(ChatterEnv):
    """An env with snapshots that calls something `state`: no part with a state for that."""

    state: str = "none"

    def snapshot(self) -> object:
        return list(self._said)

    def restore(self, snapshot: object) -> None:
        assert isinstance(snapshot, list)
        self._said = list(snapshot)


def test_an_env_with_snapshots_is_no_part_with_a_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(registry._parts["env"], "chatter", SavedEnv)
    folder = train(tiny(tmp_path, *KEPT), "auto")
    state = json.loads((folder / "checkpoints" / "step-000004" / "state.json").read_text())
    assert state["parts"] == {}
