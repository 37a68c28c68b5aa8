"""docs/speed.md is what the benchmarks measured."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
FIGURES = {
    "engine": {"ratio_2_turns", "ratio_4_turns", "ratio_8_turns", "bound_gap"},
    "trie": {
        "max_abs_logprob_diff",
        "max_rel_grad_diff",
        "share_of_bound",
        "dfs_memory_ratio",
    },
    "vs_trl": {"steps_per_s_ratio_2_turns", "steps_per_s_ratio_6_turns", "peak_memory_ratio"},
    "overhead": {"overhead_share", "episodes_1000_mib"},
    "push": {"ratio", "ratio_5M"},
    "envs": {"added_ms_per_step", "added_ms_per_step_p99"},
}


def test_the_page_is_generated_from_the_measured_figures() -> None:
    command = [sys.executable, "scripts/bench/page.py", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_every_figure_was_measured_in_at_least_five_rounds() -> None:
    for name, wanted in FIGURES.items():
        found = json.loads((ROOT / f"docs/results/bench/{name}.json").read_text())
        assert wanted <= found["figures"].keys()
        assert found["settings"]["repeats"] >= 5
