"""Inspect itself, in an interpreter that sees this package as well."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
INSIDE = Path(__file__).parent / "inspect_inside"
LIMIT_S = 240.0


def programs() -> Path:
    """Where the programs of the environment are that `.ci/install-adapters` made, or of
    AGENTRL_INSPECT_VENV; skips the test if it is not there."""
    venv = ROOT / os.environ.get("AGENTRL_INSPECT_VENV", ".venv-inspect")
    if not (venv / "bin/inspect").exists():
        pytest.skip(f"inspect-ai is not in {venv}: .ci/install-adapters")
    return venv / "bin"


def environment(**more: str) -> dict[str, str]:
    """For a process that imports this package and the tests' support, and no hub."""
    return {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", **more}


def evaluated(cases: Sequence[dict[str, Any]], folder: Path) -> list[dict[str, Any]]:
    """What Inspect's logs say of these cases (see `inspect_inside/play.py`)."""
    done = subprocess.run(
        [str(programs() / "python"), str(INSIDE / "play.py"), str(folder)],
        input=json.dumps(list(cases)),
        env=environment(),
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: list[dict[str, Any]] = json.loads(done.stdout.partition("RESULT")[2])
    return found
