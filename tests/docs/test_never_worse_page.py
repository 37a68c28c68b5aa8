"""The page on exploring where it isn't needed is what the kept pairs say."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = runpy.run_path(str(ROOT / "scripts" / "never_worse.py"))


def test_the_page_is_generated_from_the_kept_pairs() -> None:
    command = [sys.executable, "scripts/never_worse.py", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_kept_pairs_are_named_after_what_they_say_and_began_alike() -> None:
    paths = sorted((ROOT / "docs/results/never-worse").glob("*.json"))
    assert paths
    for path in paths:
        pair = json.loads(path.read_text())
        assert path.stem == f"{pair['recipe']}-{pair['seed']}"
        assert pair["plain"]["start"] == pair["bonus"]["start"]
        assert pair["plain"]["episodes"] == pair["bonus"]["episodes"] == 300
        assert not pair["plain"]["coef"]
        assert pair["bonus"]["coef"]


def test_the_lower_end_is_that_of_a_one_sided_t_interval() -> None:
    """Mean 0, standard deviation .01 over five seeds: -2.132 * .01 / sqrt(5) = -.00953."""
    gaps = [0.01265, -0.01265, 0.00632, -0.00632, 0.0]
    assert SCRIPT["lowest"](gaps) == pytest.approx(-0.00953, abs=1e-4)
