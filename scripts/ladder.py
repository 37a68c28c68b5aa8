"""The ladder: sparse tasks, with and without exploring, at the same budget of env steps.

    python scripts/ladder.py                     # run what is missing, then write docs/ladder.md
    python scripts/ladder.py --task doorkey      # only this task (again for several)
    python scripts/ladder.py --table             # only write the page
    python scripts/ladder.py --check             # only say whether the page is what the JSON says

Tasks, budgets, arms and rules stand in scripts/ladder.yaml and scripts/ladder/TASK.yaml. A finished
run lies in docs/ladder/, one small JSON each.
"""

import argparse
import itertools
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent
RULES = yaml.safe_load((ROOT / "scripts" / "ladder.yaml").read_text())
KEPT = ROOT / "docs" / "ladder"
PAGE = ROOT / "docs" / "ladder.md"
PICTURE = ROOT / "docs" / "ladder.svg"
STORY = KEPT / "notes.md"
"""What people wrote about it: changes of the rules, and what was seen."""
SINGLE = RULES["single"]
"""Each way of exploring by itself, on some of the tasks."""
ARMS = {**RULES["arms"], **SINGLE["arms"]}
ENV = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
TABLE = "oracle.jsonl"
"""What the env's expert does, for arms whose keys name it; beside the run's folder."""
HEAD = (
    "| arm | solved | success | each seed | first success | area | k tokens | CPU s |",
    "| --- | --- | --- | --- | --- | --- | --- | --- |",
)
COLOURS = dict(zip(RULES["arms"], ("#888", "#c33", "#26a", "#2a4", "#e90", "#93c"), strict=True))
"""What an arm's curves are drawn in."""
COLUMNS, PANEL_WIDTH, PANEL_HEIGHT = 2, 350, 170
"""The picture is a grid of tasks."""
OTHERS = 1000
"""Added to the seed of a second run, which so draws its tasks anew: few are those of its first."""
Entry = dict[str, Any]


def recipe(task: str) -> Path:
    """The task's config."""
    return ROOT / "scripts" / "ladder" / f"{task}.yaml"


def run(task: str, arm: str, seed: int) -> Entry:
    """Train once; what is kept of it. An arm with a `first` run before has its share of the tasks
    explored by that, and goes on from its policy with what is left of tasks and budget."""
    python = ROOT / RULES["tasks"][task]["venv"] / "bin" / "python"
    rules = ARMS[arm]
    if "script" in rules:
        return {"task": task, "arm": arm, "seed": seed, **by_script(python, rules, task, seed)}
    with tempfile.TemporaryDirectory() as folder:
        command = [str(python), "-m", "agentrl", "train", str(recipe(task))]
        command += [f"run.folder={folder}", f"run.seed={seed}"]
        if any(TABLE in key for key in rules["keys"]):
            script = str(ROOT / "scripts" / "oracle_table.py")
            told = [str(python), script, str(recipe(task)), "--out", TABLE]
            subprocess.run(told, cwd=folder, env=ENV, timeout=1200, check=True, capture_output=True)
        before: Entry | None = None
        keys = [*rules["keys"], *rules.get("tasks", {}).get(task, [])]
        if "first" in rules:
            settings = yaml.safe_load(recipe(task).read_text())
            tasks = settings["explore"]["tasks"]
            half = round(rules["first"] * tasks)
            first = [f"explore.tasks={half}", "run.steps=0", "run.name=first"]
            before = read(Path(folder) / "first", call([*command, *first], folder))
            if "error" in before:
                return {"task": task, "arm": arm, "seed": seed, **before}
            left = settings["run"]["env_steps"] - before["env_steps"]
            keys = [*keys, f"explore.tasks={tasks - half}", f"run.env_steps={left}"]
            keys += ["model=first/checkpoints/step-000000", f"run.seed={seed + OTHERS}"]
        after = read(Path(folder) / "run", call([*command, "run.name=run", *keys], folder))
    whole = after if before is None or "error" in after else joined(before, after)
    return {"task": task, "arm": arm, "seed": seed, **whole}


def call(command: list[str], folder: str) -> subprocess.CompletedProcess[str]:
    """One training run, with a deadline."""
    return subprocess.run(
        command, cwd=folder, env=ENV, timeout=3600, capture_output=True, text=True, check=False
    )


def by_script(python: Path, rules: Entry, task: str, seed: int) -> Entry:
    """What another script's last line says of its run, or why it ended."""
    command = [str(python), str(ROOT / "scripts" / rules["script"]), str(recipe(task))]
    done = call([*command, "--seed", str(seed)], str(ROOT))
    if done.returncode:
        return {"error": done.stderr.strip().splitlines()[-1:] or [f"exit {done.returncode}"]}
    entry: Entry = json.loads(done.stdout.splitlines()[-1])
    return entry


def joined(before: Entry, after: Entry) -> Entry:
    """Two runs of which the second went on from the first, as one."""
    spent = before["env_steps"]
    first = before["first"]
    if first is None and after["first"] is not None:
        first = spent + after["first"]
    explored = [r["explored"] for r in (before, after)]
    both = {key: before[key] + after[key] for key in ("env_steps", "seconds", "cpu_seconds")}
    return {
        **after,
        **both,
        "first": first,
        "explored": {key: sum(e[key] for e in explored) for key in explored[0]},
        "curve": [*before["curve"], *([spent + at, success] for at, success in after["curve"])],
    }


def read(folder: Path, done: subprocess.CompletedProcess[str]) -> Entry:
    """Of a finished run its successes, its curve and what it cost; of another one why it ended."""
    if done.returncode:
        return {"error": done.stderr.strip().splitlines()[-1:] or [f"exit {done.returncode}"]}
    [summary] = json.loads((folder / "summary.json").read_text())
    metrics = lines(folder / "metrics.jsonl")
    evals = lines(folder / "evals.jsonl")
    last = next(e for e in reversed(evals) if e["name"] in ("final", "sft", "start"))
    found = folder / "explore.json"
    explored = json.loads(found.read_text()) if found.exists() else None
    spent = {line["step"]: int(line["run/env_steps"]) for line in metrics}
    began = summary["env_steps"] if not spent else min(spent.values())
    curve = [
        [spent.get(e["step"], explored["env_steps"] if explored else began), e["success"]]
        for e in evals
        if e["name"] in ("sft", "start", "step")
    ]
    return {
        "successes": last["successes"],
        "episodes": last["episodes"],
        "env_steps": summary["env_steps"],
        "steps": summary["steps"],
        "first": first_success(explored, metrics),
        "explored": explored and {key: explored[key] for key in ("tasks", "solved", "env_steps")},
        "curve": curve,
        "tokens": round(sum(line["rollout/tokens"] for line in metrics) * episodes_of(folder)),
        "seconds": summary["seconds"],
        "cpu_seconds": summary["cpu_seconds"],
        "versions": json.loads((folder / "versions.json").read_text()),
    }


def episodes_of(folder: Path) -> int:
    """Episodes of a training step."""
    rollout = yaml.safe_load((folder / "config.yaml").read_text())["rollout"]
    return int(rollout["tasks_per_step"] * rollout["group_size"])


def first_success(explored: Entry | None, metrics: Sequence[Entry]) -> int | None:
    """Env steps of the run when it first saw a success: exactly where it explored, else at the end
    of the first training step with one."""
    if explored and explored["first_success"] is not None:
        return int(explored["first_success"])
    hits = (int(line["run/env_steps"]) for line in metrics if line["rollout/success"])
    return next(hits, None)


def lines(path: Path) -> list[Entry]:
    """The objects of a JSON-lines file."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def area(entry: Entry, budget: int) -> float:
    """Mean success over the budget of env steps: 0 before the first evaluation, then what the last
    one said (0 to 1)."""
    points = [(min(at, budget), success) for at, success in entry["curve"]]
    ends = [*(at for at, _ in points[1:]), budget]
    spans = zip(points, ends, strict=True)
    return float(sum(success * (end - at) for (at, success), end in spans)) / budget


def at_steps(entry: Entry, budget: int, count: int) -> list[float]:
    """What the last evaluation had said at each of `count` points of the budget, its ends too."""
    grid = [budget * k / (count - 1) for k in range(count)]
    return [next((s for at, s in reversed(entry["curve"]) if at <= here), 0.0) for here in grid]


def path_of(task: str, arm: str, seed: int) -> Path:
    """Where a run's JSON lies."""
    return KEPT / f"{task}-{arm}-{seed}.json"


def kept(task: str, arm: str) -> list[Entry]:
    """The finished runs of an arm on a task."""
    seeds = SINGLE["seeds"] if arm in SINGLE["arms"] else RULES["seeds"]
    paths = [path_of(task, arm, seed) for seed in seeds]
    return [json.loads(path.read_text()) for path in paths if path.exists()]


def share(entry: Entry) -> float:
    """Success on the test tasks; a run that ended without a policy has none."""
    return 0.0 if "error" in entry else entry["successes"] / entry["episodes"]


def row(task: str, arm: str, runs: Sequence[Entry]) -> str:
    """One line of a task's table."""
    whole = [r for r in runs if "error" not in r]
    solved = sum(share(r) >= RULES["solved"] for r in runs)
    budget = yaml.safe_load(recipe(task).read_text())["run"]["env_steps"]
    firsts = [r["first"] for r in whole]
    seen = [f"{first:,}" if first is not None else "never" for first in firsts]
    areas = statistics.fmean(area(r, budget) for r in whole) if whole else math.nan
    cpu = statistics.median(r["cpu_seconds"] for r in whole) if whole else math.nan
    tokens = statistics.median(r["tokens"] for r in whole) if whole else math.nan
    each = " / ".join(f"{share(r):.2f}" for r in runs)
    mean = statistics.fmean(map(share, runs))
    title = ARMS[arm]["title"]
    return (
        f"| {title} | {solved} of {len(runs)} | **{mean:.2f}** | {each} | {' / '.join(seen)} | "
        f"{areas:.2f} | {tokens / 1000:.0f} | {cpu:.0f} |"
    )


def page() -> str:
    """The Markdown of docs/ladder.md from the JSON that is there."""
    text = [
        "# The ladder",
        "",
        "Generated by `make ladder` from `docs/ladder/`; do not edit. Sparse tasks, with and",
        "without exploring, at the same budget of env steps. Rules and arms:",
        "[scripts/ladder.yaml](../scripts/ladder.yaml). A run solves its task if it succeeds on",
        f"at least {100 * RULES['solved']:.0f} % of 100 test tasks from their true starts.",
        "First success: env steps of the run when it first saw one. Area: mean success over the",
        "budget. Tokens: sampled ones in training (median, thousands). CPU: seconds of a whole run",
        "on one core, evaluations included (median).",
        "",
        "| arm | what it may use beside the policy's own episodes |",
        "| --- | --- |",
        *(f"| {arm['title']} | {arm['may']} |" for arm in RULES["arms"].values()),
        "",
        *summary(),
        "Success on dev tasks over the env steps of a run, exploring included (thin: a seed;",
        "thick: their mean; 0 before the first evaluation):",
        "",
        f"![success over env steps]({PICTURE.name})",
        "",
    ]
    for task, about in RULES["tasks"].items():
        text += section(task, about)
    text += alone()
    story = [STORY.read_text().rstrip(), ""] if STORY.exists() else []
    return "\n".join([*text, *story])


def summary() -> list[str]:
    """Runs that solved their task, for each arm and task."""
    tasks, arms = RULES["tasks"], RULES["arms"]
    head = f"| task | {' | '.join(arm['title'] for arm in arms.values())} |"
    rows = []
    for task in tasks:
        cells = []
        for arm in arms:
            runs = kept(task, arm)
            hits = sum(share(r) >= RULES["solved"] for r in runs)
            missing = RULES["arms"][arm].get("without", {}).get(task, "not run")
            cells.append(f"{hits} of {len(runs)}" if runs else missing)
        rows.append(f"| {tasks[task]['title']} | {' | '.join(cells)} |")
    return ["Runs that solved their task:", "", head, "| --- " * (len(arms) + 1) + "|", *rows, ""]


def picture() -> str:
    """Curves of every task with runs, as SVG."""
    drawn = [task for task in RULES["tasks"] if any(kept(task, arm) for arm in RULES["arms"])]
    rows = math.ceil(len(drawn) / COLUMNS)
    width, height = COLUMNS * PANEL_WIDTH + 10, rows * PANEL_HEIGHT + 26
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="10" fill="#333">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for number, task in enumerate(drawn):
        x, y = number % COLUMNS * PANEL_WIDTH, number // COLUMNS * PANEL_HEIGHT
        parts += [f'<g transform="translate({x} {y})">', *panel(task), "</g>"]
    x = 10.0
    for arm, colour in COLOURS.items():
        title = RULES["arms"][arm]["title"].removesuffix(", then GRPO")
        parts.append(f'<path d="M{x} {height - 10}h14" stroke="{colour}" stroke-width="2.5"/>')
        parts.append(f'<text x="{x + 18}" y="{height - 6}">{title}</text>')
        x += 34 + 5.1 * len(title)
    return "\n".join([*parts, "</svg>"]) + "\n"


def panel(task: str) -> list[str]:
    """A task's curves: a thin line for a seed, a thick one for their mean."""
    left, right, top, bottom = 34, PANEL_WIDTH - 8, 22, PANEL_HEIGHT - 26
    budget = yaml.safe_load(recipe(task).read_text())["run"]["env_steps"]
    parts = [
        f'<text x="{left}" y="14" font-size="12">{RULES["tasks"][task]["title"]}</text>',
        f'<text x="{right}" y="{bottom + 16}" text-anchor="end">{budget:,} env steps</text>',
    ]
    for share in (0, 0.5, RULES["solved"], 1):
        y = bottom - share * (bottom - top)
        dashed = ' stroke-dasharray="4 3"' if share == RULES["solved"] else ""
        parts.append(f'<path d="M{left} {y:.1f}H{right}" stroke="#ccc"{dashed}/>')
        parts.append(f'<text x="{left - 5}" y="{y + 3:.1f}" text-anchor="end">{share}</text>')

    def line(shares: Sequence[float], stroke: str) -> str:
        step = (right - left) / (len(shares) - 1)
        points = (
            f"{left + k * step:.1f} {bottom - share * (bottom - top):.1f}"
            for k, share in enumerate(shares)
        )
        return f'<path d="M{"L".join(points)}" fill="none" {stroke}/>'

    for arm, colour in COLOURS.items():
        runs = [at_steps(r, budget, 101) for r in kept(task, arm) if "error" not in r]
        stroke = f'stroke="{colour}" stroke-width="0.7" opacity="0.5"'
        parts += [line(run, stroke) for run in runs]
        if runs:
            mean = [statistics.fmean(column) for column in zip(*runs, strict=True)]
            parts.append(line(mean, f'stroke="{colour}" stroke-width="2"'))
    return parts


def section(task: str, about: Entry) -> list[str]:
    """A task's table; nothing where no run is finished."""
    found = [(arm, runs) for arm in RULES["arms"] if (runs := kept(task, arm))]
    if not found:
        return []
    settings = yaml.safe_load(recipe(task).read_text())
    env = ", ".join(f"{k} {v}" for k, v in settings["env"].items() if not k.endswith("_tasks"))
    whole = [r for _, runs in found for r in runs if "error" not in r]
    versions: Entry = whole[0]["versions"] if whole else {}
    failed = [
        f"{RULES['arms'][arm]['title']}, seed {r['seed']}: {r['error'][0]}"
        for arm, runs in found
        for r in runs
        if "error" in r
    ]
    return [
        f"## {about['title']}",
        "",
        f"`scripts/ladder/{task}.yaml`: {env}; {settings['run']['env_steps']:,} env steps.",
        "",
        *HEAD,
        *(row(task, arm, runs) for arm, runs in found),
        "",
        *([f"Ended early: {'; '.join(failed)}.", ""] if failed else []),
        f"Python {versions.get('python')}, torch {versions.get('torch')}, transformers "
        f"{versions.get('transformers')}.",
        "",
    ]


def alone() -> list[str]:
    """The ways of exploring by themselves: what they may use, and a line for each on each task."""
    arms, seeds = SINGLE["arms"], len(SINGLE["seeds"])
    text = [
        "## Each explorer by itself",
        "",
        f"On two tasks, {seeds} seeds: other ways to explore in place of the archive's, and TRL's",
        "own `GRPOTrainer` ([scripts/ladder_trl.py](../scripts/ladder_trl.py)); model, optimiser,",
        "budget and rules as above, each way with its defaults and bonuses paid by the turn. Above",
        "them GRPO and the archive with the same seeds. Ways that need somebody's table, judge or",
        "other tasks (subgoals, ELLM, Motif, hindsight) cannot stand alone here.",
        "",
        "| arm | what it may use beside the policy's own episodes |",
        "| --- | --- |",
        *(f"| {arm['title']} | {arm['may']} |" for arm in arms.values()),
        "",
    ]
    for task in SINGLE["tasks"]:
        text += [f"### {RULES['tasks'][task]['title']}", "", *HEAD]
        for arm in ("grpo", "none", *arms):
            runs = [r for r in kept(task, arm) if r["seed"] in SINGLE["seeds"]]
            missing = f"| {ARMS[arm]['title']} | not run |" + " |" * 6
            text.append(row(task, arm, runs) if runs else missing)
        text.append("")
    return text


def is_due(task: str, arm: str, asked: Sequence[int], seed: int) -> bool:
    """The arm is for this task, and for this seed unless that was asked for."""
    if arm in SINGLE["arms"]:
        return task in SINGLE["tasks"] and (seed in asked or seed in SINGLE["seeds"])
    return task not in ARMS[arm].get("without", {})


def main() -> None:
    """Run what is missing and write the page."""
    parser = argparse.ArgumentParser(description="Regenerate docs/ladder.md.")
    parser.add_argument("--task", choices=RULES["tasks"], action="append", help="only this task")
    parser.add_argument("--arm", choices=ARMS, action="append", help="only this arm")
    parser.add_argument("--seed", type=int, action="append", help="only this seed")
    parser.add_argument("--again", action="store_true", help="run everything anew")
    parser.add_argument("--table", action="store_true", help="only write the page")
    parser.add_argument("--check", action="store_true", help="only compare the page with the JSON")
    args = parser.parse_args()
    if args.check:
        if PAGE.read_text() != page() or PICTURE.read_text() != picture():
            sys.exit("docs/ladder.md is not what docs/ladder/*.json say: ladder.py --table")
        return
    KEPT.mkdir(parents=True, exist_ok=True)
    wanted = itertools.product(args.seed or RULES["seeds"], args.task or RULES["tasks"], ARMS)
    for seed, task, arm in [] if args.table else wanted:
        if arm not in (args.arm or ARMS) or not is_due(task, arm, args.seed or [], seed):
            continue
        path, venv = path_of(task, arm, seed), RULES["tasks"][task]["venv"]
        if not (ROOT / venv).exists():
            print(f"NOT RUN: {task} needs {venv} (make ladder installs it)", flush=True)
        elif args.again or not path.exists():
            print(f"=== {task} {arm} seed {seed}", flush=True)
            path.write_text(json.dumps(run(task, arm, seed), indent=1) + "\n")
    PAGE.write_text(page())
    PICTURE.write_text(picture())
    print(f"wrote {PAGE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
