from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import wandb

from agentrl.core.errors import ConfigError, MissingExtraError, TrackError
from agentrl.core.registry import find
from agentrl.track.jsonl import read_lines
from agentrl.track.trajectories import EpisodeRecord
from agentrl.track.wandb import WeightsAndBiases
from support.disks import full_disk
from support.runs import Words, groups, records
from support.wandb_files import history, offline_folders, table
from support.wandb_files import records as log_records


@pytest.fixture(autouse=True, scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No reports of errors to W&B, nothing in the home folder, no process left behind."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_ERROR_REPORTING", "false")
        patch.setenv("WANDB_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("WANDB_CONFIG_DIR", str(tmp_path_factory.mktemp("config")))
        yield
        wandb.teardown()


def sink(**settings: object) -> WeightsAndBiases:
    return WeightsAndBiases(system_metrics=False, timeout_s=30.0, **settings)  # type: ignore[arg-type]


def opened(folder: Path, *, resumed: int = 0, **settings: object) -> WeightsAndBiases:
    made = sink(**settings)
    made.open(folder, "quickstart", 10, resumed=resumed)
    return made


def episodes(step: int) -> list[EpisodeRecord]:
    words = Words()
    made = groups(words, tasks=1, samples=4, rate=0.5, seed=1)
    return records(words, made, phase="train", label="step", step=step)


def column(folder: Path, key: str) -> list[tuple[int, object]]:
    return [(step, row.get(key)) for step, row in history(folder).items()]


def test_the_sink_is_found_by_its_name() -> None:
    assert find("track", "wandb") is WeightsAndBiases


def test_rows_tables_and_settings_are_read_back(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("optim:\n  lr: 0.5\n")
    track = opened(tmp_path, project="little", episodes_every=2, episodes_shown=3)
    track.evaluation(0, "random", {"success": 0.125})
    for step in (1, 2, 3):
        track.episodes(step, episodes(step))
        track.log(step, {"loss/kl": step / 4, "loss/grad_norm": math.nan})
        track.evaluation(step, "dev", {"success": step / 8})
    track.close()
    track.close()
    (folder,) = offline_folders(tmp_path)
    assert column(folder, "loss/kl") == [(0, None), (1, 0.25), (2, 0.5), (3, 0.75)]
    assert column(folder, "loss/grad_norm")[1] == (1, "NaN")
    assert column(folder, "eval/dev/success")[1:] == [(1, 0.125), (2, 0.25), (3, 0.375)]
    assert history(folder)[0]["eval/random/success"] == 0.125
    (run,) = log_records(folder, "run")
    assert (run["project"], run["display_name"]) == ("little", "quickstart")
    assert run["config"]["update"]["optim"] == {"lr": 0.5}
    rows = history(folder)
    assert "episodes.path" not in rows[3]
    shown = table(folder, rows[2])
    assert [len(row) for row in shown] == [8, 8, 8]
    assert {row[0] for row in shown} == {2}
    assert all(">>> " in row[-1] for row in shown)
    assert not list(tmp_path.glob("**/*.netrc"))
    assert os.environ.get("WANDB_DATA_DIR") is None


def test_a_killed_run_goes_on_as_one_run_with_every_step(tmp_path: Path) -> None:
    script = f"""
        import os, signal
        from pathlib import Path
        from agentrl.track.wandb import WeightsAndBiases
        track = WeightsAndBiases(system_metrics=False)
        track.open(Path({str(tmp_path)!r}), "quickstart", 10)
        for step in range(1, 6):
            track.log(step, {{"a": float(step)}})
        os.kill(os.getpid(), signal.SIGKILL)
    """
    own = {key: value for key, value in os.environ.items() if key != "WANDB_SERVICE"}
    command = [sys.executable, "-c", textwrap.dedent(script)]
    killed = subprocess.run(command, check=False, timeout=60, env=own)
    assert killed.returncode == -signal.SIGKILL
    (before,) = offline_folders(tmp_path)
    track = opened(tmp_path, resumed=3)
    for step in (4, 5, 6):
        track.log(step, {"a": 10.0 * step})
    track.close()
    (folder,) = offline_folders(tmp_path)
    assert folder.name.split("-")[-1] == before.name.split("-")[-1]
    assert column(folder, "a") == [(1, 1), (2, 2), (3, 3), (4, 40), (5, 50), (6, 60)]


def test_beginning_anew_is_another_run(tmp_path: Path) -> None:
    first = opened(tmp_path)
    first.log(1, {"a": 1.0})
    first.close()
    (before,) = offline_folders(tmp_path)
    second = opened(tmp_path)
    second.log(1, {"a": 2.0})
    second.close()
    (after,) = offline_folders(tmp_path)
    assert before.name.split("-")[-1] != after.name.split("-")[-1]
    assert column(after, "a") == [(1, 2)]


def test_when_its_process_dies_training_goes_on_and_no_row_is_lost(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    track = opened(tmp_path)
    track.log(1, {"a": 1.0})
    for core in children("wandb-core"):
        os.kill(core, signal.SIGKILL)
    time.sleep(0.3)
    for step in (2, 3):
        track.log(step, {"a": float(step)})
    track.close()
    (folder,) = offline_folders(tmp_path)
    assert column(folder, "a") == [(1, 1), (2, 2), (3, 3)]
    said = [record.getMessage() for record in caplog.records if "training goes on" in record.msg]
    assert len(said) == 1
    assert "wandb failed (ConnectionResetError" in said[0]


def children(name: str) -> list[int]:
    listed = subprocess.run(
        ["ps", "--ppid", str(os.getpid()), "-o", "pid=,comm="],
        capture_output=True,
        text=True,
        check=True,
    )
    found = [line.split() for line in listed.stdout.splitlines()]
    return [int(pid) for pid, command in found if command == name]


def test_a_full_disk_loses_no_row(tmp_path: Path) -> None:
    track = opened(tmp_path)
    track.log(1, {"a": 1.0})
    journal = tmp_path / "wandb" / "agentrl.jsonl"
    with full_disk(journal, spare=5):
        track.log(2, {"a": 2.0})
        assert len(read_lines(journal)) == 2
    track.log(3, {"a": 3.0})
    track.close()
    (folder,) = offline_folders(tmp_path)
    assert column(folder, "a") == [(1, 1), (2, 2), (3, 3)]


def test_rows_that_are_lost_at_the_end_are_an_error(tmp_path: Path) -> None:
    track = opened(tmp_path)
    with full_disk(tmp_path / "wandb" / "agentrl.jsonl", spare=5):
        track.log(1, {"a": 1.0})
        with pytest.raises(TrackError, match="last 1 entries"):
            track.close()


def test_online_without_an_account_is_refused_and_never_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    began = time.monotonic()
    track = sink(mode="online")
    with pytest.raises(ConfigError, match="mode: offline"):
        track.open(tmp_path, "quickstart", 10)
    track.close()
    assert time.monotonic() - began < 30


def test_disabled_does_nothing(tmp_path: Path) -> None:
    track = opened(tmp_path, mode="disabled")
    track.episodes(1, episodes(1))
    track.log(1, {"a": 1.0})
    track.close()
    assert list(tmp_path.iterdir()) == []


def test_logging_without_an_open_run_says_what_to_do() -> None:
    with pytest.raises(TrackError, match=r"call open\(\) first"):
        sink().log(1, {"a": 1.0})


def test_a_missing_package_is_named_when_the_config_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'agentrl\[wandb\]'"):
        sink()
    assert sink(mode="disabled").mode == "disabled"
