"""The page of workflow-guided exploration is what the kept runs say."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SCRIPT = runpy.run_path(str(ROOT / "scripts" / "workflows.py"))


def test_the_page_is_generated_from_the_kept_runs() -> None:
    command = [sys.executable, "scripts/workflows.py", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_kept_runs_are_named_after_what_they_say() -> None:
    for path in sorted((ROOT / "docs/results/workflows").glob("*.json")):
        run = json.loads(path.read_text())
        assert path.stem == f"{run['task']}-{run['demos']}-{run['seed']}"
        assert set(run["guided"]["evals"]) == set(run["cloned"]["evals"]) == {"sft", "final"}


def test_enough_is_the_first_window_with_90_percent() -> None:
    enough = SCRIPT["enough"]
    assert enough([True] * 19) is None
    assert enough([True] * 20) == 20
    assert enough([False] * 5 + [True] * 30) == 23
    assert enough([False, True] * 40) is None
