"""The page of what three papers found is what the kept runs say."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_page_is_generated_from_the_kept_runs() -> None:
    command = [sys.executable, "scripts/findings.py", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_kept_runs_are_named_after_what_they_say_and_add_up() -> None:
    paths = sorted((ROOT / "docs/results/findings").glob("*.json"))
    assert paths
    for path in paths:
        run = json.loads(path.read_text())
        assert path.stem == f"{run['method']}-{run['seed']}"
        free = run["free"]
        assert sum(n for n, _ in free["styles"].values()) == 120 * 16
        assert sum(hits for _, hits in free["styles"].values()) == sum(free["successes"])
        assert all(hits <= n for n, hits in free["styles"].values())
        assert max(free["successes"]) <= free["samples"] == 16
        for way in run.get("chances", []):
            assert all(0 <= chance <= 1 for chance in way)


def test_methods_that_are_compared_sampled_as_many_episodes_as_the_page_says() -> None:
    for path in sorted((ROOT / "docs/results/findings").glob("*.json")):
        run = json.loads(path.read_text())
        equal = {"grpo", "ppo", "expert_iteration", "length", "hbpo"}
        assert run["method"] not in equal or run["episodes"] == 40 * 20 * 8
        assert (run["sampled"] > 0) == (run["method"] != "sft")
