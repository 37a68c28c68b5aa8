"""The benchmarks of scripts/bench start, and both arms of the engine's replay the same episodes.

In one process of its own, since the scripts register parts and have plain module names.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BENCHES = ROOT / "scripts" / "bench"

DRIVER = """
import contextlib, io, json, runpy, sys

sys.path.insert(0, "scripts/bench")
helps = {}
for name in sys.argv[1:]:
    sys.argv = [f"{name}.py", "--help"]
    with contextlib.redirect_stdout(io.StringIO()) as said:
        try:
            runpy.run_path(f"scripts/bench/{name}.py", run_name="__main__")
        except SystemExit as left:
            helps[name] = [left.code, said.getvalue()]

import engine
from subjects import build, scripts

policy = build("0.65M")
case = engine.Case(turns=2, episodes=4, group_size=2)
played = scripts(policy.tokenizer, seed=3, turns=2, episodes=4, group_size=2)
tokens = {
    "wanted": sum(script.useful for script in played),
    "peer": engine.generate_per_turn(policy, played, case).tokens,
    "ours": engine.embedded("generate", policy, played, case).tokens,
}
print(json.dumps({"helps": helps, "tokens": tokens}))
"""


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_benchmarks_start_and_the_arms_of_the_engines_sample_as_many_tokens() -> None:
    names = sorted(p.stem for p in BENCHES.glob("*.py") if "--json" in p.read_text())
    names.remove("measure")
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, *names],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=230,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    for name, (code, said) in found["helps"].items():
        assert code == 0, name
        assert f"scripts/bench/{name}.py" in said
    assert [*found["helps"]] == names
    tokens = found["tokens"]
    assert tokens["peer"] == tokens["ours"] == tokens["wanted"] > 0
