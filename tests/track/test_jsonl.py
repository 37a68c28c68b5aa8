import json
import math
from pathlib import Path

import pytest

from agentrl.core.errors import DataError
from agentrl.core.registry import find
from agentrl.track.jsonl import JsonLines, append_line, cut_back, read_lines, read_metrics


def opened(folder: Path) -> JsonLines:
    sink = JsonLines()
    sink.open(folder, "run", 10)
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


def test_a_reopened_sink_appends_after_the_last_whole_line(tmp_path: Path) -> None:
    first = opened(tmp_path)
    first.log(1, {"a": 1.0})
    first.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "a": 0.')
    assert [line["step"] for line in read_metrics(tmp_path)] == [1]
    second = JsonLines()
    second.open(tmp_path, "run", 10, resumed=1)
    second.log(2, {"a": 2.0})
    second.close()
    assert [(line["step"], line["a"]) for line in read_metrics(tmp_path)] == [(1, 1.0), (2, 2.0)]


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
