"""The table of docs/scale.md is what the parity tests measured."""

import json
import subprocess
import sys
from pathlib import Path

from support.parity import CASES

ROOT = Path(__file__).parents[2]


def test_the_table_is_generated_from_the_measured_differences() -> None:
    command = [sys.executable, "scripts/scale_page.py", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_every_case_of_every_backend_was_measured() -> None:
    files = sorted((ROOT / "docs/results/parity").glob("*.json"))
    assert [path.stem for path in files] == ["ddp", "deepspeed-2", "deepspeed-3", "fsdp"]
    for path in files:
        done = [case.name for case in CASES if case.executor != "dfs" or path.stem == "ddp"]
        assert [*json.loads(path.read_text())] == done
