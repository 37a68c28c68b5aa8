"""Write docs/methods.md: every method of credit and loss, generated from the code.

    python scripts/methods_page.py            # write the page
    python scripts/methods_page.py --run      # before that, make the smoke runs that are missing
    python scripts/methods_page.py --check    # only say whether the page is what the code gives

A smoke run is the quickstart cut to eight steps, with one part replaced (or a preset of its name
applied): half a minute on one core. It shows that a method learns at all, not which is better.
"""

import argparse
import inspect
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from agentrl.core.registry import find, names

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "methods.md"
KEPT = ROOT / "docs" / "results" / "smoke"
PRESETS = ROOT / "scripts" / "presets"
SLOTS = {
    "advantage": "Credit: what each episode, turn or token is worth beside its siblings.",
    "loss": "Surrogates, per token.",
    "aggregate": "Length normalisation: how much each token weighs in the step.",
    "kl": "Distance from the reference policy.",
    "mismatch": "Corrections where the sampler was not the policy that is trained.",
    "entropy": "How the policy is kept from being too sure.",
    "reward": "What an episode is worth.",
    "bonus": "What is paid for the sake of exploring, beside the reward.",
    "start": "Where training episodes begin.",
    "filter": "Which groups are trained on.",
    "curriculum": "Which tasks come next.",
    "strategy": "How the episodes of a step are spent.",
    "explore": "What is found out before training.",
    "selector": "Which cell of the archive is returned to.",
    "cells": "Which states are one cell.",
    "proposer": "Who is asked for choices, goals and judgements.",
}
SMOKED = ("advantage", "loss")
"""Slots whose parts have a smoke run."""
CUT = ("run.steps=8", "eval.every=4", "eval.final_tasks=200", "eval.baselines=false")
ANSWERED = ("run.steps=30", "env.ends=answer", "env.turns=3", "rollout.max_turns=3")
SUITED = {
    "hbpo": (
        "rollout.group_size=8",
        "strategy={name: budget_subgroups, budgets: [8, 16, 32, 48], words: '{budget}! '}",
        "reward.cap=64",
        "advantage.cap=64",
    ),
    "mrt": (*ANSWERED, "strategy={name: mrt, words: 'answer '}"),
    "mrt_dense": (*ANSWERED, "strategy={name: mrt_dense, words: 'answer '}"),
}
"""What a preset needs beside itself to fit the recipe."""
RECIPES = dict.fromkeys(("mrt", "mrt_dense"), "scripts/results-countdown.yaml")
"""Where an episode has to be one that can be made to answer; elsewhere it is the quickstart."""
ARXIV = re.compile(r"(?:arXiv )?\b(\d{4}\.\d{5})\b")


def smoke(slot: str, name: str) -> dict[str, object]:
    """Train once; success before and after."""
    with tempfile.TemporaryDirectory() as folder:
        recipe = RECIPES.get(name, "scripts/quickstart.yaml")
        command = [sys.executable, "-m", "agentrl", "train", recipe, *CUT]
        preset = PRESETS / f"{name}.yaml"
        chosen = ["--preset", name] if preset.exists() else [f"{slot}={name}"]
        chosen += SUITED.get(name, ())
        command += [*chosen, f"run.folder={folder}", "run.name=run"]
        variables = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run(command, check=True, cwd=ROOT, env=variables, timeout=600)
        run = Path(folder) / "run"
        evals = [json.loads(line) for line in (run / "evals.jsonl").read_text().splitlines()]
        [summary] = json.loads((run / "summary.json").read_text())
    found = {e["name"]: e["success"] for e in evals}
    return {
        "settings": " ".join(chosen),
        "sft": found["sft"],
        "final": found["final"],
        "tasks": summary["tasks"],
        "cpu_seconds": summary["cpu_seconds"],
    }


def kept(slot: str, name: str) -> Path:
    """Where a smoke run's JSON lies."""
    return KEPT / f"{slot}-{name}.json"


def tests_of(part: type) -> list[Path]:
    """The test files that import the class."""
    pattern = re.compile(
        rf"^from {re.escape(part.__module__)} import\b[^#]*?\b{part.__name__}\b", re.M
    )
    spread = re.compile(r"\(\s*([^)]*)\)")
    found = []
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        text = spread.sub(lambda m: " ".join(m[1].split()), path.read_text())
        if pattern.search(text):
            found.append(path)
    return found


def row(slot: str, name: str) -> str:
    """One method's line of the table."""
    part = find(slot, name)
    path = Path(inspect.getfile(part)).resolve().relative_to(ROOT)
    what = " ".join((part.__doc__ or "").split("\n\n")[0].split()).replace("|", "\\|")
    sources = dict.fromkeys(ARXIV.findall(part.__doc__ or ""))
    links = ", ".join(f"[{number}](https://arxiv.org/abs/{number})" for number in sources)
    tests = tests_of(part) or [ROOT / "tests" / "algo" / "test_laws.py"]
    shown = ", ".join(f"[{p.stem}](../{p.relative_to(ROOT)})" for p in tests[:3])
    cells = [f"`{name}`", what, links, f"[{path.name}](../{path})", shown]
    if slot in SMOKED:
        file = kept(slot, name)
        run = json.loads(file.read_text()) if file.exists() else None
        cells.append(f"{run['sft']:.3f} → {run['final']:.3f}" if run else "")
    return f"| {' | '.join(cells)} |"


def page() -> str:
    """The Markdown of docs/methods.md."""
    lines = [
        "# Methods",
        "",
        "Generated by `scripts/methods_page.py`; do not edit. Each is one file; its name is what a",
        "config calls it (`advantage=rloo`), its fields are listed by `agentrl list SLOT`. All are",
        "also held to the laws of `tests/algo/test_laws.py` (order, padding, masks, micro-batches,",
        "the gradient on policy). Presets of whole recipes lie in `scripts/presets/`.",
        "",
        "*Smoke run*: the quickstart cut to eight steps of 128 episodes, one seed, with this part",
        "in place of its own or with the preset of its name: success on 200 test tasks after the",
        "warm start and after the last step. It shows whether a method learns at the quickstart's",
        "learning rate and four updates a batch, which were chosen for `ppo_clip`, and not which",
        "is better: tables with three seeds are in [results.md](results.md). `mrt` and `mrt_dense`",
        "need an answer that can be forced: 30 short steps of Countdown with `answer`.",
        "",
    ]
    for slot, what in SLOTS.items():
        head = ["name", "what", "source", "file", "tests"]
        head += ["smoke run"] if slot in SMOKED else []
        lines += [f"## {slot}", "", what, "", f"| {' | '.join(head)} |"]
        lines += [f"|{' --- |' * len(head)}", *(row(slot, name) for name in names(slot)), ""]
    return "\n".join(lines)


def main() -> None:
    """Make what is missing and write the page."""
    parser = argparse.ArgumentParser(description="Write docs/methods.md.")
    parser.add_argument("--run", action="store_true", help="make the smoke runs that are missing")
    parser.add_argument("--check", action="store_true", help="only compare the page with the code")
    args = parser.parse_args()
    if args.check:
        if PAGE.read_text() != page():
            sys.exit("docs/methods.md is not what the code says: scripts/methods_page.py")
        return
    KEPT.mkdir(parents=True, exist_ok=True)
    for slot in SMOKED if args.run else ():
        for name in names(slot):
            if not kept(slot, name).exists():
                print(f"=== {slot} {name}", flush=True)
                kept(slot, name).write_text(json.dumps(smoke(slot, name), indent=1) + "\n")
    PAGE.write_text(page())
    print(f"wrote {PAGE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
