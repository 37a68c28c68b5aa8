"""The page of results is what the kept runs say."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_page_of_results_is_generated_from_the_kept_runs() -> None:
    command = [sys.executable, "scripts/results.py", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_kept_runs_are_named_after_what_they_say() -> None:
    for path in (ROOT / "docs" / "results").glob("*.json"):
        run = json.loads(path.read_text())
        recipe = path.stem.removesuffix(f"-{run['method']}-{run['seed']}")
        assert run["recipe"] == recipe
        files = [ROOT / "scripts" / f"{name}.yaml" for name in (f"results-{recipe}", recipe)]
        assert any(file.exists() for file in files)
        assert run["summary"]["seed"] == run["seed"]
        assert run["summary"]["cpu_seconds"] <= 300
