"""Rollouts that run ahead of the trainer: whole runs under `partial` and `async`."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from agentrl.core.errors import ConfigError
from agentrl.rollout.record import read_groups
from agentrl.track.trajectories import read_episodes
from agentrl.train.checkpoint import Checkpoints, step_of
from agentrl.train.loop import train
from support.same import differences
from support.stopping import stopped, stopping_sink
from support.whole_runs import column, timeless, tiny, training_envs

__all__ = ["stopping_sink", "training_envs"]
pytestmark = pytest.mark.usefixtures("training_envs")

AHEAD = ("rollout.max_staleness=2", "mismatch=tis", "env=slow-chatter", "run.steps=6")


@pytest.mark.parametrize("engine", ["transformers", "generate"])
@pytest.mark.parametrize("mode", ["partial", "async"])
def test_a_run_ahead_trains_every_task_once_within_the_bound(
    tmp_path: Path, mode: str, engine: str
) -> None:
    config = tiny(tmp_path, *AHEAD, f"rollout.mode={mode}", f"engine={engine}")
    folder = train(config)
    stalest = column(folder, "rollout/staleness_max")
    assert max(map(float, stalest)) <= 2  # type: ignore[arg-type]
    assert max(map(float, stalest)) > 0, "nothing ran ahead"  # type: ignore[arg-type]
    assert all(gap is not None for gap in column(folder, "mismatch/k3"))
    trained = [
        episode.task_id
        for step in range(1, 7)
        for episode in read_episodes(folder / "trajectories" / f"train-{step:06d}.parquet")
    ]
    in_step = train(tiny(tmp_path / "sync", "env=slow-chatter", "run.steps=6"))
    asked = [
        episode.task_id
        for step in range(1, 7)
        for episode in read_episodes(in_step / "trajectories" / f"train-{step:06d}.parquet")
    ]
    assert sorted(trained) == sorted(asked)


def test_the_versions_of_tokens_are_those_of_the_weights_that_sampled_them(tmp_path: Path) -> None:
    folder = train(tiny(tmp_path, *AHEAD, "rollout.mode=async", "rollout.record=true"))
    versions = [
        {
            version
            for group in read_groups(path)
            for trajectory in group.trajectories
            for turn in trajectory.turns
            for version, _ in turn.versions
        }
        for path in sorted((folder / "schedule").iterdir())
    ]
    assert len(versions) == 6
    for step, found in enumerate(versions):
        assert found <= {step - 2, step - 1, step}
    assert len(set[int]().union(*versions)) > 1


def test_a_recorded_schedule_repeats_a_run_bit_for_bit(tmp_path: Path) -> None:
    settings = (*AHEAD, "rollout.mode=async", "eval.every=0", "eval.baselines=false")
    first = train(tiny(tmp_path / "a", *settings, "rollout.record=true"))
    replay = f"rollout.replay={first / 'schedule'}"
    again = train(tiny(tmp_path / "b", *settings, replay))
    ignored = {"rollout/staleness", "rollout/staleness_max", "rollout/in_flight"}
    ignored |= {"rollout/waiting", "groups/late"}
    lines = [
        [{k: v for k, v in line.items() if k not in ignored} for line in timeless(folder)]
        for folder in (first, again)
    ]
    assert lines[0] == lines[1]
    last = [Checkpoints(folder=folder / "checkpoints").newest() for folder in (first, again)]
    weights = [(path / "model.safetensors").read_bytes() for path in last if path]
    assert len(weights) == 2
    assert weights[0] == weights[1]


def test_a_replayed_run_that_was_stopped_goes_on_bit_for_bit(tmp_path: Path) -> None:
    settings = (*AHEAD, "rollout.mode=async", "checkpoint.every=1", "checkpoint.keep=9")
    first = train(tiny(tmp_path / "a", *settings, "rollout.record=true"))
    replay = f"rollout.replay={first / 'schedule'}"
    straight = train(tiny(tmp_path / "b", *settings, replay))
    config = tiny(tmp_path / "c", *settings, replay)
    stopped(config, 3)
    assert differences(straight, train(config, "auto")) == []


def test_a_resumed_run_loses_no_task_and_trains_none_twice(tmp_path: Path) -> None:
    settings = (*AHEAD, "rollout.mode=async", "checkpoint.every=1", "checkpoint.keep=9")
    config = tiny(tmp_path, *settings, "rollout.record=true")
    stopped(config, 3)
    newest = Checkpoints(folder=tmp_path / "tiny/checkpoints").newest()
    assert newest is not None
    books = [path.name for path in (newest / "rollouts").iterdir()]
    assert sorted(books) == ["books.0.json", "groups.0.json.gz"]
    folder = train(config, "auto")
    groups = [g for path in sorted((folder / "schedule").iterdir()) for g in read_groups(path)]
    twin = train(tiny(tmp_path / "twin", *settings, "rollout.record=true"))
    others = [g for path in sorted((twin / "schedule").iterdir()) for g in read_groups(path)]
    assert sorted(g.task.id for g in groups) == sorted(g.task.id for g in others)
    assert len(groups) == 12


def test_what_was_complete_at_a_checkpoint_is_not_played_again(tmp_path: Path) -> None:
    settings = (*AHEAD, "rollout.mode=async", "checkpoint.every=1", "checkpoint.keep=9")
    config = tiny(tmp_path, *settings, "rollout.record=true")
    stopped(config, 3)
    newest = Checkpoints(folder=tmp_path / "tiny/checkpoints").newest()
    assert newest is not None
    kept = read_groups(newest / "rollouts" / "groups.0.json.gz")
    folder = train(config, "auto")
    later = [
        group
        for path in sorted((folder / "schedule").iterdir())[step_of(newest) :]
        for group in read_groups(path)
    ]
    for group in kept:
        assert group in later


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (["rollout.mode=async"], "max_staleness: must be at least 1 under rollout.mode=async"),
        (["rollout.max_staleness=2"], "must be 0 under rollout.mode=sync"),
        (["rollout.mode=async", "rollout.max_staleness=1"], "set mismatch=tis"),
        ([*AHEAD, "rollout.mode=async", "strategy=dynamic"], "use strategy=flat"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(
    tmp_path: Path, settings: list[str], told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        tiny(tmp_path, *settings)


def test_a_schedule_that_is_not_there_is_refused_before_training(tmp_path: Path) -> None:
    config = tiny(tmp_path, f"rollout.replay={tmp_path / 'nothing'}")
    with pytest.raises(ConfigError, match=r"holds no schedule.*rollout\.record=true"):
        train(config)


def test_the_samplers_own_logprobs_can_be_what_ratios_are_taken_against(tmp_path: Path) -> None:
    settings = [text for text in AHEAD if text != "mismatch=tis"]
    folder = train(tiny(tmp_path, *settings, "rollout.mode=async", "optim.old=sampler"))
    again = shutil.copytree(folder, tmp_path / "copy")
    assert column(again, "mismatch/k3") == column(folder, "mismatch/k3")
    assert len(column(folder, "loss/policy")) == 6


@pytest.mark.parametrize(
    "settings",
    [
        ["lora.rank=2", "kl=k3"],
        ["sft={demos: 4, dev_demos: 2, max_steps: 5}", "env=echo", "kl=k3"],
        ["optim.updates_per_batch=2", "scorer=trie", "entropy={name: adaptive, target: 99}"],
    ],
    ids=["lora-kl", "sft-kl", "trie-entropy"],
)
def test_every_kind_of_run_runs_ahead(tmp_path: Path, settings: list[str]) -> None:
    folder = train(tiny(tmp_path, *AHEAD, "rollout.mode=async", *settings))
    gaps = [float(str(gap)) for gap in column(folder, "sync/probe_gap")]
    assert len(gaps) == 6
    assert max(gaps) < 1e-4
