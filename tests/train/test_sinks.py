"""Whole runs with every sink: TensorBoard and W&B hold what metrics.jsonl holds, after a resume."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import wandb
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from agentrl.track.jsonl import read_metrics
from agentrl.train.loop import train
from support.stopping import stopped, stopping_sink
from support.wandb_files import history, offline_folders
from support.whole_runs import tiny, training_envs

__all__ = ["stopping_sink", "training_envs"]
pytestmark = pytest.mark.usefixtures("training_envs")
SINKS = (
    "track=[jsonl, tensorboard, {name: wandb, system_metrics: false}]",
    "run.steps=4",
    "checkpoint.every=1",
    "eval.every=2",
)


@pytest.fixture(autouse=True, scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_ERROR_REPORTING", "false")
        patch.setenv("WANDB_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("WANDB_CONFIG_DIR", str(tmp_path_factory.mktemp("config")))
        yield
        wandb.teardown()


@pytest.mark.slow
def test_a_resumed_run_is_one_run_in_every_sink(tmp_path: Path) -> None:
    config = tiny(tmp_path, *SINKS)
    stopped(config, 3)
    folder = train(config, "auto")
    lines = read_metrics(folder)
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    (offline,) = offline_folders(folder)
    rows = history(offline)
    for key in ("rollout/reward", "loss/policy", "loss/grad_norm", "optim/lr"):
        values = [line[key] for line in lines]
        found = events.Scalars(key)
        assert [event.step for event in found] == [1, 2, 3, 4]
        assert [event.value for event in found] == pytest.approx(values, rel=1e-6)
        assert [rows[step][key] for step in (1, 2, 3, 4)] == pytest.approx(values)
    dev = events.Scalars("eval/dev/success")
    assert [event.step for event in dev] == [2, 4]
    assert rows[2]["eval/dev/success"] == pytest.approx(dev[0].value)
    assert {"eval/final/success", "eval/dev/success"} <= set(rows[4])
    assert [event.step for event in events.Tensors("episodes")] == [1]
    assert "episodes.path" in rows[1]
