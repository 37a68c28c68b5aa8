"""Words as Beacons in small: a level of two rooms with subgoals of an offline table, and without.

    python scripts/beacons.py                        # run what is missing, then write the page
    python scripts/beacons.py --arm none --seed 1    # only this (again for several)
    python scripts/beacons.py --table                # only write the page
    python scripts/beacons.py --check                # only compare the page with the JSON

An arm is a teacher: how many of the table's subgoals it names right, and whether it names places or
things. Finished runs lie in docs/results/beacons/, one small JSON each.
"""

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent
KEPT = ROOT / "docs" / "results" / "beacons"
PAGE = ROOT / "docs" / "beacons.md"
STORY = KEPT / "notes.md"
"""What people wrote about it."""
RECIPE = ROOT / "scripts" / "beacons.yaml"
SEEDS = (1, 2, 3)
MARKS = (0.5, 0.8)
"""Success on dev tasks up to which env steps are counted."""
ARMS: dict[str, tuple[str, str | None, float]] = {
    "none": ("nobody", None, 1.0),
    "things": ("the table, things", "object", 1.0),
    "things-985": ("things, as Llama in the paper", "object", 0.985),
    "things-906": ("things, as DeepSeek in the paper", "object", 0.906),
    "places": ("the table, places", "position", 1.0),
    "places-974": ("places, as Llama in the paper", "position", 0.974),
    "places-334": ("places, as DeepSeek in the paper", "position", 0.334),
}
"""What the page calls a teacher, what it names, and the share that is right: for KeyCorridor-S3R3
in the configuration of Words as Beacons' code (Ruiz-Gonzalez et al. 2024, arXiv 2410.08632)."""
TABLE = "beacons.jsonl"
Entry = dict[str, Any]


def bonus(arm: str, seed: int) -> str:
    """The arm's key: which bonus."""
    _, kind, right = ARMS[arm]
    if kind is None:
        return "bonus=none"
    teacher: Entry = {"name": "table", "path": TABLE}
    if right < 1:
        teacher = {"name": "noisy", "right": right, "seed": seed, "proposer": teacher}
    settings = yaml.safe_load(RECIPE.read_text())["bonus"]
    return f"bonus={json.dumps(settings | {'kind': kind, 'proposer': teacher})}"


def run(arm: str, seed: int) -> Entry:
    """Train once; its curve and what it cost."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    level = yaml.safe_load(RECIPE.read_text())["env"]["level"]
    with tempfile.TemporaryDirectory() as folder:
        table = [str(ROOT / "scripts" / "beacons_table.py"), "--level", level, "--out", TABLE]
        subprocess.run([sys.executable, *table], check=True, cwd=folder, env=env, timeout=300)
        command = [sys.executable, "-m", "agentrl", "train", str(RECIPE), bonus(arm, seed)]
        command += [f"run.folder={folder}", "run.name=run", f"run.seed={seed}"]
        subprocess.run(command, check=True, cwd=folder, env=env, timeout=1800)
        made = Path(folder) / "run"
        [summary] = json.loads((made / "summary.json").read_text())
        evals = [json.loads(line) for line in (made / "evals.jsonl").read_text().splitlines()]
        metrics = [json.loads(line) for line in (made / "metrics.jsonl").read_text().splitlines()]
        spent = {line["step"]: int(line["run/env_steps"]) for line in metrics}
        [final] = [e for e in evals if e["name"] == "final"]
        [start] = [e for e in evals if e["name"] == "sft"]
        return {
            "arm": arm,
            "seed": seed,
            "start": start["success"],
            "curve": [[spent[e["step"]], e["success"]] for e in evals if e["name"] == "step"],
            "successes": final["successes"],
            "episodes": final["episodes"],
            "env_steps": summary["env_steps"],
            "goals": [round(line.get("bonus/goals_reached", 0.0), 3) for line in metrics],
            "cpu_seconds": summary["cpu_seconds"],
            "versions": json.loads((made / "versions.json").read_text()),
        }


def until(entry: Entry, mark: float) -> int | None:
    """Env steps at the first evaluation on dev tasks with at least this success."""
    return next((at for at, success in entry["curve"] if success >= mark), None)


def kept(arm: str) -> list[Entry]:
    """The finished runs of an arm."""
    paths = [KEPT / f"{arm}-{seed}.json" for seed in SEEDS]
    return [json.loads(path.read_text()) for path in paths if path.exists()]


def row(arm: str) -> str:
    """An arm's line."""
    title, kind, right = ARMS[arm]
    share = "" if kind is None else f"{100 * right:.1f} %"
    runs = kept(arm)
    if not runs:
        return f"| {title} | {share} | not run |" + " |" * 4
    cells = [
        " / ".join(f"{at:,}" if (at := until(r, mark)) is not None else "never" for r in runs)
        for mark in MARKS
    ]
    ends = [r["successes"] / r["episodes"] for r in runs]
    cells += [" / ".join(f"{end:.2f}" for end in ends), f"**{statistics.fmean(ends):.2f}**"]
    cpu = statistics.median(r["cpu_seconds"] for r in runs)
    return f"| {title} | {share} | {' | '.join(cells)} | {cpu:.0f} |"


def page() -> str:
    """The Markdown of docs/beacons.md from the JSON that is there."""
    settings = yaml.safe_load(RECIPE.read_text())
    env, budget = settings["env"], settings["run"]["env_steps"]
    lines = [
        "# Subgoals from an offline table",
        "",
        "Generated by `scripts/beacons.py` from `docs/results/beacons/`; do not edit.",
        f"MiniGrid's {env['level']} in text, {env['cap']} steps an episode and {budget:,} in all",
        "(`scripts/beacons.yaml`), from a policy that knows only the form of actions. A table",
        "names doors and goal of each train task in order, as [places or as",
        "things](exploration.md#subgoals), and the turn that reaches the next one is paid in the",
        "second channel. A noisy teacher names so many right; its wrong ones are other things, or",
        "places some cells away. Env steps until success on 60 dev tasks was 50 % and 80 % for the",
        f"first time (looked every {settings['eval']['every']} steps of training), then success",
        "on 100 test tasks, without subgoals. Each seed's figure.",
        "",
        "| who names subgoals | right | env steps to 50 % | to 80 % | success | mean | CPU s |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        *map(row, ARMS),
        "",
        "The paper ([Words as Beacons](https://arxiv.org/abs/2410.08632)) reports 30 to 200 times",
        "fewer steps than earlier methods, with PPO on larger levels; its figure and these are not",
        "comparable, beyond the direction. The shares of right subgoals are its measured teachers'",
        "on KeyCorridor-S3R3.",
        "",
    ]
    every = list(itertools.chain.from_iterable(map(kept, ARMS)))
    if every:
        v = every[0]["versions"]
        lines += [
            f"Python {v['python']}, torch {v['torch']}, transformers {v['transformers']}.",
            "",
        ]
    story = [STORY.read_text().rstrip(), ""] if STORY.exists() else []
    return "\n".join([*lines, *story])


def main() -> None:
    """Run what is missing and write the page."""
    parser = argparse.ArgumentParser(description="Regenerate docs/beacons.md.")
    parser.add_argument("--arm", choices=ARMS, action="append", help="only this teacher")
    parser.add_argument("--seed", type=int, action="append", help="only this seed")
    parser.add_argument("--table", action="store_true", help="only write the page")
    parser.add_argument("--check", action="store_true", help="only compare the page with the JSON")
    args = parser.parse_args()
    if args.check:
        if PAGE.read_text() != page():
            sys.exit("docs/beacons.md is not what its JSON says: scripts/beacons.py --table")
        return
    KEPT.mkdir(parents=True, exist_ok=True)
    wanted = itertools.product(args.seed or SEEDS, args.arm or ARMS)
    for seed, arm in () if args.table else wanted:
        path = KEPT / f"{arm}-{seed}.json"
        if not path.exists():
            print(f"=== {arm}, seed {seed}", flush=True)
            path.write_text(json.dumps(run(arm, seed)) + "\n")
    PAGE.write_text(page())
    print(f"wrote {PAGE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
