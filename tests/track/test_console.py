import errno
import os
import pty
import re
import time
from pathlib import Path

import pytest

from agentrl.core.registry import find
from agentrl.track.console import Console

METRICS = {
    "rollout/success": 0.625,
    "rollout/reward": 0.4321,
    "loss/entropy": 1.25,
    "loss/kl": 0.0123,
    "time/tokens_per_s": 1234.0,
    "time/env_s": 0.5,
    "time/step_s": 2.0,
    "optim/lr": 1e-4,
}


def test_the_sink_is_found_by_its_name() -> None:
    assert find("track", "console") is Console


def test_a_plain_line_holds_every_number_and_the_time_left(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    sink = Console()
    sink.open(tmp_path, "quickstart", 50)
    sink.log(1, METRICS)
    sink.close()
    opening, line = capsys.readouterr().out.splitlines()
    assert opening == f"quickstart: 50 steps, writing to {tmp_path}"
    assert line == (
        "step 1/50  success 62 %  reward 0.432  entropy 1.250  KL 0.012  1.23k tokens/s"
        "  env 0.5 s  2 s/step  0:01:38 left"
    )


def test_what_was_not_measured_is_left_out(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    sink = Console()
    sink.open(tmp_path, "run", 50)
    sink.log(1, {"rollout/success": 0.5, "loss/kl": float("nan")})
    sink.close()
    assert capsys.readouterr().out.splitlines()[1] == "step 1/50  success 50 %"


def test_plain_lines_come_every_few_steps_and_at_both_ends(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    sink = Console(every=3)
    sink.open(tmp_path, "run", 8)
    for step in range(1, 9):
        sink.log(step, {"rollout/reward": 1.0})
    sink.close()
    steps = re.findall(r"step (\d+)/8", capsys.readouterr().out)
    assert steps == ["1", "3", "6", "8"]


def test_the_time_left_follows_the_measured_pace(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    sink = Console(every=1)
    sink.open(tmp_path, "run", 1002)
    sink.log(1, {"time/step_s": 500.0})
    time.sleep(0.05)
    sink.log(2, {"time/step_s": 500.0})
    sink.close()
    left = re.findall(r"(\d+):(\d\d):(\d\d) left", capsys.readouterr().out)
    hours, minutes, seconds = (int(part) for part in left[-1])
    assert 49 <= 3600 * hours + 60 * minutes + seconds < 5000


def test_said_lines_are_not_read_as_markup(capsys: pytest.CaptureFixture[str]) -> None:
    sink = Console()
    sink.say("prompt [bold]<act>[/bold] " + "x" * 200)
    sink.close()
    assert capsys.readouterr().out == "prompt [bold]<act>[/bold] " + "x" * 200 + "\n"


def _piece(terminal: int) -> bytes:
    """The next piece of what a closed terminal was written; nothing (EIO) after the last."""
    try:
        return os.read(terminal, 65536)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return b""


def test_a_terminal_gets_a_bar_with_said_lines_above_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.delenv("NO_COLOR", raising=False)
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w", encoding="utf-8") as terminal:
        monkeypatch.setattr("sys.stdout", terminal)
        sink = Console()
        sink.open(tmp_path, "quickstart", 50)
        sink.log(7, METRICS)
        sink.say("a new best: 62 %")
        sink.log(8, METRICS | {"rollout/success": 0.875})
        sink.close()
        sink.close()
    seen = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", b"".join(iter(lambda: _piece(ours), b"")).decode())
    os.close(ours)
    assert "a new best: 62 %" in seen
    last = seen[seen.rindex("a new best") :]
    assert "━" in last
    assert "8/50" in last
    assert "success 88 %" in last
    assert "KL 0.012" in last
    assert "left" in last
    assert "step 7/50" not in seen
