"""docs/reliability.md says what its files say, and its rows are what they claim to be."""

import json
import runpy
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import get_args

import pytest

from agentrl.core.types import Failure, Group, Score, Stop, Task, Trajectory
from support.fault_log import Boundary, FaultLog
from support.kills import KillReport

ROOT = Path(__file__).parents[2]
TASK = Task(id="a", seed=0)
GOOD = Trajectory(task=TASK, turns=(), stop=Stop.DONE, success=True, score=Score(value=1.0))
BROKEN = Trajectory(
    task=TASK,
    turns=(),
    stop=Stop.ERROR,
    failure=Failure(where="env", error="step raised"),
    seconds=0.5,
)


def test_the_page_is_what_its_files_say() -> None:
    done = subprocess.run(
        [sys.executable, "scripts/reliability.py", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert done.returncode == 0, done.stderr


def test_every_row_was_noticed_within_twice_its_deadline_at_every_boundary() -> None:
    rows = json.loads((ROOT / "docs/reliability/faults.json").read_text())["rows"]
    boundaries = set(get_args(Boundary))
    assert {row["boundary"] for row in rows} == boundaries
    assert all(row["noticed_s"] < 2 * row["deadline_s"] for row in rows)
    whole = {row["boundary"] for row in rows if row["place"].startswith("whole run")}
    assert whole == boundaries


def log_of(*episodes: Trajectory, deadline_s: float = 1.0, failed: int = 1) -> FaultLog:
    log = FaultLog()
    groups = [Group(task=TASK, trajectories=episodes)]
    log.groups("env", "raises", "thread", deadline_s=deadline_s, groups=groups, failed=failed)
    return log


def test_a_row_says_what_was_counted_and_how_the_rest_went_on() -> None:
    [row] = log_of(GOOD, BROKEN).rows
    assert (row.noticed_s, row.counted) == (0.5, "1 env failure")
    assert row.then == "1 other episode scored"


@pytest.mark.parametrize(
    ("episodes", "deadline_s", "failed"),
    [((GOOD, BROKEN), 0.25, 1), ((GOOD, BROKEN), 1.0, 2), ((GOOD, GOOD), 1.0, 1)],
    ids=["late", "fewer than said", "not at all"],
)
def test_a_fault_that_is_late_or_counted_wrongly_makes_no_row(
    episodes: tuple[Trajectory, ...], deadline_s: float, failed: int
) -> None:
    with pytest.raises(AssertionError):
        log_of(*episodes, deadline_s=deadline_s, failed=failed)


def test_the_page_tells_of_kills_what_their_report_holds() -> None:
    told = {**asdict(KillReport(kills=20, runs=5, torn=3, before=2)), "machine": "a laptop"}
    render = runpy.run_path(str(ROOT / "scripts/reliability.py"))["kills"]
    text = " ".join("\n".join(render(told)).split())
    assert "20 times a run was ended" in text
    assert "until 5 runs had come to their end" in text
    assert "3 kills hit a checkpoint while it was written, 2 came before" in text
    assert "Differences: **none**." in text
    both = "\n".join(render({**told, "remark": "By hand.", "again": told}))
    assert "\nBy hand.\n\nAgain, 20 kills of 5 runs" in both
    other = render({**told, "mismatches": ["run 2: other weights"]})
    assert "- run 2: other weights" in other
    assert "Differences: **1**." in "\n".join(other)
