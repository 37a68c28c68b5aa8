import json
import math
import re
from pathlib import Path
from typing import cast

import pytest

from agentrl.core.errors import DataError, TrackError
from agentrl.core.registry import find
from agentrl.track.jsonl import JsonLines, append_line, cut_back, read_lines, read_metrics
from support.disks import full_disk


def opened(folder: Path, *, resumed: int = 0) -> JsonLines:
    sink = JsonLines()
    sink.open(folder, "run", 10, resumed=resumed)
    return sink


def test_the_sink_is_found_by_its_name() -> None:
    assert find("track", "jsonl") is JsonLines


def test_each_step_is_on_disk_before_the_sink_is_closed(tmp_path: Path) -> None:
    sink = opened(tmp_path)
    sink.log(1, {"rollout/success": 0.5})
    sink.log(2, {"rollout/success": 0.75})
    lines = [json.loads(text) for text in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    sink.close()
    assert [(line["step"], line["rollout/success"]) for line in lines] == [(1, 0.5), (2, 0.75)]
    assert 0 <= lines[0]["seconds"] <= lines[1]["seconds"] < 60


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_json_cannot_say_is_null(tmp_path: Path, value: float) -> None:
    sink = opened(tmp_path)
    sink.log(1, {"loss/kl": value, "loss/entropy": 1.5})
    sink.close()
    assert (tmp_path / "metrics.jsonl").read_text().count("null") == 1
    (line,) = read_metrics(tmp_path)
    assert (line["loss/kl"], line["loss/entropy"]) == (None, 1.5)


def test_a_resumed_sink_appends_after_the_last_whole_line(tmp_path: Path) -> None:
    first = opened(tmp_path)
    first.log(1, {"a": 1.0})
    first.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "a": 0.')
    assert [line["step"] for line in read_metrics(tmp_path)] == [1]
    second = opened(tmp_path, resumed=1)
    second.log(2, {"a": 2.0})
    second.close()
    assert [(line["step"], line["a"]) for line in read_metrics(tmp_path)] == [(1, 1.0), (2, 2.0)]


def test_a_resumed_run_leaves_the_lines_of_an_uninterrupted_one(tmp_path: Path) -> None:
    values = {step: {"a": step / 3, "b": math.nan, "c": 1e-300 * step} for step in range(1, 9)}
    whole = opened(tmp_path / "whole")
    for step, metrics in values.items():
        whole.log(step, metrics)
    whole.close()
    for begin, end in ((1, 5), (3, 6), (6, 8)):  # killed after `end`, resumed before `begin`
        part = opened(tmp_path / "parts", resumed=begin - 1)
        for step in range(begin, end + 1):
            part.log(step, values[step])
        if end == 8:
            part.close()
    texts = [
        re.sub(r'"seconds": [0-9.]+', "", (tmp_path / name / "metrics.jsonl").read_text())
        for name in ("whole", "parts")
    ]
    assert texts[0] == texts[1]


def test_seconds_go_on_where_the_last_kept_line_left_them(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(
        '{"step": 1, "seconds": 100.5}\n{"step": 2, "seconds": 200.5}\n'
    )
    sink = opened(tmp_path, resumed=1)
    sink.log(2, {})
    sink.close()
    seconds = [line["seconds"] for line in read_metrics(tmp_path)]
    assert seconds[0] == 100.5
    assert 100.5 <= cast("float", seconds[1]) < 160


def test_beginning_anew_drops_what_an_earlier_start_logged(tmp_path: Path) -> None:
    for value in (1.0, 2.0):
        sink = opened(tmp_path)
        sink.log(1, {"a": value})
        sink.close()
    assert [line["a"] for line in read_metrics(tmp_path)] == [2.0]


def test_a_full_disk_loses_no_line(tmp_path: Path) -> None:
    sink = opened(tmp_path)
    sink.log(1, {"a": 1.0})
    with full_disk(tmp_path / "metrics.jsonl", spare=7):
        sink.log(2, {"a": 2.0})
        sink.log(3, {"a": 3.0})
        assert [line["a"] for line in read_metrics(tmp_path)] == [1.0]
    sink.log(4, {"a": 4.0})
    sink.close()
    assert [line["a"] for line in read_metrics(tmp_path)] == [1.0, 2.0, 3.0, 4.0]


def test_lines_that_are_lost_at_the_end_are_an_error(tmp_path: Path) -> None:
    sink = opened(tmp_path)
    with full_disk(tmp_path / "metrics.jsonl", spare=0):
        sink.log(1, {"a": 1.0})
        with pytest.raises(TrackError, match="the last 1 entries could not be written"):
            sink.close()


def test_logging_without_an_open_file_says_what_to_do(tmp_path: Path) -> None:
    sink = opened(tmp_path)
    sink.close()
    sink.close()
    with pytest.raises(DataError, match=r"call open\(\) first"):
        sink.log(1, {"a": 1.0})


def test_cutting_back_drops_exactly_the_steps_after_the_checkpoint(tmp_path: Path) -> None:
    sink = opened(tmp_path)
    for step in range(1, 6):
        sink.log(step, {"a": float(step)})
    sink.close()
    assert cut_back(tmp_path, 3) == 2
    assert [line["step"] for line in read_metrics(tmp_path)] == [1, 2, 3]
    assert cut_back(tmp_path, 3) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_a_broken_line_is_named_by_file_and_number(tmp_path: Path) -> None:
    path = tmp_path / "evals.jsonl"
    append_line(path, {"a": 1})
    with path.open("a") as file:
        file.write("[1, 2]\n")
    with pytest.raises(DataError, match=r"evals.jsonl:2: expected a JSON object, got '\[1, 2\]'"):
        read_lines(path)
    path.write_text("{]\n")
    with pytest.raises(DataError, match=r"evals.jsonl:1"):
        read_lines(path)


def test_a_file_that_is_not_there_has_no_lines(tmp_path: Path) -> None:
    assert read_metrics(tmp_path) == []
