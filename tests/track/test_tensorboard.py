import math
import time
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from agentrl.core.errors import MissingExtraError, TrackError
from agentrl.core.registry import find
from agentrl.track.tensorboard import TensorBoard
from agentrl.track.trajectories import EpisodeRecord
from support.disks import full_disk
from support.runs import Words, groups, records


def opened(folder: Path, *, resumed: int = 0, **settings: int) -> TensorBoard:
    sink = TensorBoard(**settings)
    sink.open(folder, "run", 10, resumed=resumed)
    return sink


def read(folder: Path) -> Any:
    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"tensors": 0})
    events.Reload()
    return events


def scalars(folder: Path, tag: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in read(folder).Scalars(tag)]


def texts(folder: Path, tag: str) -> dict[int, str]:
    return {
        event.step: event.tensor_proto.string_val[0].decode() for event in read(folder).Tensors(tag)
    }


def episodes(step: int) -> list[EpisodeRecord]:
    words = Words()
    made = groups(words, tasks=1, samples=4, rate=0.5, seed=1)
    return records(words, made, phase="train", label="step", step=step)


def test_the_sink_is_found_by_its_name() -> None:
    assert find("track", "tensorboard") is TensorBoard


def test_every_metric_of_every_step_is_read_back_before_the_file_is_closed(tmp_path: Path) -> None:
    sink = opened(tmp_path)
    sink.log(1, {"loss/kl": 0.5, "rollout/success": 0.25})
    sink.log(2, {"loss/kl": math.nan, "rollout/success": 1.0})
    assert scalars(tmp_path, "rollout/success") == [(1, 0.25), (2, 1.0)]
    values = scalars(tmp_path, "loss/kl")
    assert values[0] == (1, 0.5)
    assert math.isnan(values[1][1])
    sink.close()
    sink.close()


def test_evaluations_are_curves_of_their_own(tmp_path: Path) -> None:
    sink = opened(tmp_path)
    sink.evaluation(0, "random", {"success": 0.125})
    for step in (2, 4):
        sink.log(step, {"a": 1.0})
        sink.evaluation(step, "dev", {"success": step / 8})
    sink.close()
    assert scalars(tmp_path, "eval/random/success") == [(0, 0.125)]
    assert scalars(tmp_path, "eval/dev/success") == [(2, 0.25), (4, 0.5)]


def test_a_resumed_run_takes_back_later_steps_and_goes_on(tmp_path: Path) -> None:
    first = opened(tmp_path)
    for step in range(1, 6):
        first.log(step, {"a": float(step)})
    second = opened(tmp_path, resumed=3)  # the first was killed: nobody closed it
    for step in (4, 5, 6):
        second.log(step, {"a": 10.0 * step})
    third = opened(tmp_path, resumed=5)
    third.log(6, {"a": 66.0})
    assert len(list((tmp_path / "tensorboard").iterdir())) == 3
    assert scalars(tmp_path, "a") == [
        (1, 1.0), (2, 2.0), (3, 3.0), (4, 40.0), (5, 50.0), (6, 66.0),
    ]  # fmt: skip
    for sink in (first, second, third):
        sink.close()


def test_beginning_anew_takes_everything_back(tmp_path: Path) -> None:
    first = opened(tmp_path)
    first.log(1, {"a": 1.0})
    first.close()
    second = opened(tmp_path)
    second.log(1, {"a": 2.0})
    second.close()
    assert scalars(tmp_path, "a") == [(1, 2.0)]


def test_a_few_episodes_become_a_table_when_one_is_due(tmp_path: Path) -> None:
    sink = opened(tmp_path, episodes_every=2, episodes_shown=3)
    for step in range(1, 6):
        sink.episodes(step, episodes(step))
        sink.log(step, {"a": 1.0})
    sink.close()
    shown = texts(tmp_path, "episodes")
    assert sorted(shown) == [1, 2, 4]
    head, rule, *lines = shown[4].splitlines()
    assert head.startswith("| step | task | instruction |")
    assert set(rule) == set("| -")
    assert len(lines) == 3
    assert all(line.count(" | ") == 7 for line in lines)
    assert "--- turn 1<br>" in lines[0]


def test_markup_of_the_run_stays_text_in_its_cell(tmp_path: Path) -> None:
    (one, *_) = episodes(1)
    one.turns[0].pieces[0] = "a|b\n<img src=x> **c** `d`"
    sink = opened(tmp_path)
    sink.episodes(1, [one])
    sink.close()
    (table,) = texts(tmp_path, "episodes").values()
    assert len(table.splitlines()) == 3
    assert "<img" not in table
    assert "a&#124;b<br>&#60;img src=x&#62; &#42;&#42;c&#42;&#42; &#96;d&#96;" in table


def test_the_settings_of_the_run_are_shown(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("run:\n  steps: 3\n")
    opened(tmp_path).close()
    assert "steps: 3" in texts(tmp_path, "config")[0]


def test_a_full_disk_loses_nothing(tmp_path: Path) -> None:
    sink = opened(tmp_path)
    sink.log(1, {"a": 1.0})
    (path,) = (tmp_path / "tensorboard").iterdir()
    with full_disk(path, spare=10):
        sink.log(2, {"a": 2.0})
        sink.log(3, {"a": 3.0})
        assert scalars(tmp_path, "a") == [(1, 1.0)]
    sink.log(4, {"a": 4.0})
    sink.close()
    assert scalars(tmp_path, "a") == [(step, float(step)) for step in (1, 2, 3, 4)]


def test_entries_lost_at_the_end_are_an_error(tmp_path: Path) -> None:
    sink = opened(tmp_path)
    (path,) = (tmp_path / "tensorboard").iterdir()
    with full_disk(path, spare=0):
        sink.log(1, {"a": 1.0})
        with pytest.raises(TrackError, match="last 1 entries"):
            sink.close()


def test_logging_without_an_open_file_says_what_to_do() -> None:
    with pytest.raises(TrackError, match=r"call open\(\) first"):
        TensorBoard().log(1, {"a": 1.0})


def test_a_missing_package_is_named_when_the_config_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'agentrl\[tensorboard\]'"):
        TensorBoard()


def test_a_step_costs_little(tmp_path: Path) -> None:
    sink = opened(tmp_path)
    metrics = {f"group/metric-{i}": float(i) for i in range(60)}
    sink.log(1, metrics)
    began = time.perf_counter()
    for step in range(2, 102):
        sink.log(step, metrics)
    assert (time.perf_counter() - began) / 100 < 0.02
    sink.close()
