"""The page of backtracking is what the kept runs say."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = runpy.run_path(str(ROOT / "scripts" / "backtracking.py"))


def test_the_page_is_generated_from_the_kept_runs() -> None:
    command = [sys.executable, "scripts/backtracking.py", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_kept_runs_are_named_after_what_they_say() -> None:
    paths = sorted((ROOT / "docs/results/backtracking").glob("*.json"))
    assert paths
    for path in paths:
        run = json.loads(path.read_text())
        assert path.stem == f"{run['format']}-{run['seed']}"
        for when in ("sft", "grpo"):
            passes = list(run[when]["pass_at_k"].values())
            assert len(passes) > 2
            assert passes == sorted(passes)


def test_compute_is_counted_as_the_paper_counts_it() -> None:
    """Its 3M model (hidden 256, keys 64, inner 512, 6 layers): 4096 tokens are 2.658e10."""
    settings = {"LAYERS": 6, "HIDDEN": 256, "KEYS": 64, "INNER": 512}
    flops = SCRIPT["flops"]
    flops.__globals__.update(settings)
    try:
        assert flops(4096) == pytest.approx(2.658e10, rel=1e-3)
        assert flops(212, 16) == pytest.approx(1.189e10, rel=1e-3)
    finally:
        flops.__globals__.update({name: SCRIPT[name] for name in settings})
