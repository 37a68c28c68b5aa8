"""Learning results: methods on recipes, three seeds each, kept as JSON.

    python scripts/results.py              # run what is missing, then write docs/results.md
    python scripts/results.py --again      # run everything anew
    python scripts/results.py --table      # only write docs/results.md
    python scripts/results.py --check      # only say whether docs/results.md is what the JSON says

What plays in a browser runs in `.venv-gui`, where it is (`.ci/install-gui`).

One run is one `agentrl train` in a process of its own, on one core; SFT's row is the warm start of
the recipe's first method. Finished runs lie in docs/results/, one small JSON each. `textworld`
needs an interpreter with agentrl[textworld] (`.ci/install-envs` makes one).
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent
KEPT = ROOT / "docs" / "results"
PAGE = ROOT / "docs" / "results.md"
SEEDS = (1, 2, 3)
REPLAY = "rollout.replay=before/schedule"
"""Trains on what the first weights sampled in a run before that learned nothing."""
RECORDING = ["rollout.record=true", "optim.lr=0", "eval.every=0", "eval.final_tasks=0"]
"""Settings of that run."""
METHODS = {
    "grpo": ("GRPO", ["advantage=grpo"]),
    "dr_grpo": (
        "Dr. GRPO",
        ["advantage=grpo", "advantage.scale=none", "aggregate=constant", "aggregate.length=16"],
    ),
    "rloo": ("RLOO", ["advantage=rloo"]),
    "gigpo": ("GiGPO", ["advantage=gigpo"]),
    "graphgpo": ("GraphGPO", ["advantage=graphgpo"]),
    "turn_gae": ("turn GAE", ["advantage=turn_gae", "critic.lr=1e-3", "critic.epochs=2"]),
    "bilevel_gae": ("bi-level GAE", ["advantage=bilevel_gae", "critic.lr=1e-3", "critic.epochs=2"]),
    "clipped": ("GRPO, clipped", ["loss=ppo_clip", "loss.low=0.2", "loss.high=0.3"]),
    "unclipped": ("GRPO, ratios without a clip", ["loss=reinforce", "loss.weighted=true"]),
    "gspo": ("GSPO", ["--preset", "gspo"]),
    "gmpo": ("GMPO", ["--preset", "gmpo"]),
    "cispo": ("CISPO", ["--preset", "cispo"]),
    "sapo": ("SAPO", ["--preset", "sapo"]),
    "dppo": ("DPPO", ["--preset", "dppo"]),
    "step_grpo": ("StepGRPO", ["reward=step_wise"]),
    "dpo": ("online DPO", ["--preset", "dpo"]),
    "dpo_offline": ("offline DPO", ["--preset", "dpo", REPLAY]),
    "copg": ("CoPG", ["--preset", "copg"]),
    "copg_offline": ("offline CoPG", ["--preset", "copg", REPLAY]),
    "grpo_offline": ("offline GRPO", ["advantage=grpo", REPLAY]),
    "async": (
        "GRPO ahead",
        ["rollout.mode=async", "rollout.max_staleness=2", "mismatch=tis", "engine=transformers"],
    ),
    "explored": ("SFT on what was found, then GRPO", []),
    "alone": (
        "SFT on random play, then GRPO",
        ["explore=none", "sft.source=random", "sft.demos=8", "sft.max_steps=25"],
    ),
}
"""Name -> how the page calls it, and the settings that make it."""
RECIPES = {
    "babyai-GoToObj": ("grpo", "rloo", "async"),
    "babyai-GoToLocalS6N2": ("grpo", "rloo", "gigpo", "graphgpo", "turn_gae", "bilevel_gae"),
    "countdown": ("grpo", "dr_grpo", "rloo", "gigpo", "graphgpo", "turn_gae", "bilevel_gae"),
    "countdown-16": ("clipped", "unclipped", "gspo", "gmpo", "cispo", "sapo", "dppo"),
    "countdown-pairs": ("grpo", "dpo", "dpo_offline", "copg", "copg_offline", "grpo_offline"),
    "sudoku": ("grpo", "step_grpo"),
    "tools": ("grpo",),
    "game24": ("grpo",),
    "textworld": ("grpo",),
    "program": ("grpo",),
    "miniwob-click-test-2": ("grpo",),
    "miniwob-click-button": ("grpo",),
    "miniwob-enter-text": ("grpo",),
    "webapps-phone": ("grpo",),
    "doorkey": ("explored", "alone"),
    "quickstart": ("grpo", "async"),
}
"""`scripts/results-NAME.yaml`, or `scripts/NAME.yaml` -> the methods that it is run with."""
GUI = ROOT / ".venv-gui" / "bin" / "python"
IN_BROWSER = ("miniwob", "webapps")
"""How recipes begin that need the extra gui, which `.ci/install-gui` installs there."""
AGENTS = ROOT / "scripts" / "agents"
PREPARED = {"program": AGENTS / "prepare_babyai.py"}
"""What writes, for a seed, what the recipe wants to find where it is started."""
TRIED = {
    "miniwob-enter-text": "80 demonstrations were taken after runs of these seeds with 60 and 100",
    "textworld": "settings were tried on seed 1 alone",
    "webapps-phone": "settings were tried on seed 11",
}
"""What is to be said of how a recipe came to be."""
SAID = {
    "babyai-GoToLocalS6N2": (
        "Whether credit for steps is worth it in up to sixteen turns: GraphGPO and bi-level GAE "
        "end above GRPO, as their papers found, by less than GRPO's seeds differ; GiGPO and turn "
        "GAE end below it, which theirs did not find."
    ),
    "countdown": (
        "Two turns leave little to be told apart: no estimator is seen to be better than another."
    ),
    "countdown-16": (
        "Sixteen updates a batch at one learning rate for all: GRPO's clip, DPPO and GSPO end "
        "above ratios without a clip, by less than their intervals; GMPO, SAPO and CISPO end about "
        "there. That its paper's loss is better than the clip is seen for none. Four updates a "
        "batch learn more (the table above), and no loss had a learning rate of its own."
    ),
    "countdown-pairs": (
        "Offline means the first weights' samples, as many and the same prompts, taken before "
        "training. Online DPO ends above offline DPO on every seed, which is what the papers on "
        "offline data say; so do CoPG and GRPO. Of the three that learn from old samples, CoPG "
        "keeps the most on every seed, as its paper claims; with samples of its own it is not "
        "seen to be better than GRPO."
    ),
    "sudoku": (
        "Paying for the steps of a solution is not seen to help here: StepGRPO and GRPO end "
        "alike, and neither far above SFT (on one seed a step beyond its limit of 400)."
    ),
    "miniwob-enter-text": (
        "The package asks for one of fifty names. Those that some demonstration had are learned "
        "nearly whole; of the others most are never sampled, so that no reward ever leads to them, "
        "and they limit the policy."
    ),
}
"""Recipe -> whether what its papers found is seen here."""
BESIDE = {"random": "random (floor)", "expert": "expert (ceiling)", "sft": "SFT", "start": "SFT"}
"""Evaluations of the same run that stand beside the method's, where it has them."""


def run(recipe: str, method: str, seed: int) -> dict[str, object]:
    """Train once and return what is kept of it."""
    with tempfile.TemporaryDirectory() as folder:
        in_browser = recipe.startswith(IN_BROWSER) and GUI.exists()
        python = str(GUI) if in_browser else sys.executable
        train = [python, "-m", "agentrl", "train", str(config(recipe)), f"run.seed={seed}"]
        train.append(f"run.folder={folder}")
        command = [*train, "run.name=run", *METHODS[method][1]]
        paths = os.pathsep.join([str(AGENTS), os.environ.get("PYTHONPATH", "")])
        variables = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
        first = [[sys.executable, str(PREPARED[recipe]), str(seed)]] if recipe in PREPARED else []
        if REPLAY in command:
            first.append([*train, "run.name=before", *RECORDING])
        for words in [*first, command]:
            subprocess.run(words, check=True, cwd=folder, env=variables, timeout=1800)
        run_folder = Path(folder) / "run"
        [summary] = json.loads((run_folder / "summary.json").read_text())
        evals = [json.loads(line) for line in (run_folder / "evals.jsonl").read_text().splitlines()]
        versions = json.loads((run_folder / "versions.json").read_text())
    keep = ("name", "step", "split", "episodes", "successes", "success", "low", "high", "turns")
    return {
        "recipe": recipe,
        "method": method,
        "seed": seed,
        "summary": summary,
        "evals": [{key: e[key] for key in keep} for e in evals],
        "versions": versions,
    }


def config(recipe: str) -> Path:
    """The recipe's file."""
    own = ROOT / "scripts" / f"results-{recipe}.yaml"
    return own if own.exists() else ROOT / "scripts" / f"{recipe}.yaml"


def kept(recipe: str, method: str, seed: int) -> Path:
    """Where a run's JSON lies."""
    return KEPT / f"{recipe}-{method}-{seed}.json"


def found(recipe: str, method: str) -> list[dict[str, object]]:
    """The finished runs of a method, one for each seed."""
    paths = [kept(recipe, method, seed) for seed in SEEDS]
    return [json.loads(path.read_text()) for path in paths if path.exists()]


def cell(runs: list[dict[str, object]], name: str) -> str:
    """Mean over seeds, the interval of all episodes together, and each seed's value."""
    results = [next(e for e in r["evals"] if e["name"] == name) for r in runs]  # type: ignore[index]
    shares = [e["success"] for e in results]
    hits, n = sum(e["successes"] for e in results), sum(e["episodes"] for e in results)
    low, high = wilson(hits, n)
    seeds = " / ".join(f"{share:.3f}" for share in shares)
    return f"**{statistics.fmean(shares):.3f}** ({low:.3f}-{high:.3f}) | {seeds}"


def wilson(hits: int, n: int, z: float = 1.959964) -> tuple[float, float]:
    """95 % Wilson interval of a share."""
    p, d = hits / n, 1 + z * z / n
    middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return (middle - half) / d, (middle + half) / d


def section(recipe: str) -> list[str]:
    """The recipe's table; nothing where its first method has no finished run."""
    first = found(recipe, RECIPES[recipe][0])
    if not first:
        return []
    settings = yaml.safe_load(config(recipe).read_text())
    env = settings["env"]
    shown = ", ".join(f"{k} {v}" for k, v in env.items() if not k.endswith(("name", "_tasks")))
    lines = [
        f"## {recipe.replace('-', ' ')}",
        "",
        f"Env `{env['name']}` with {shown}.",
        "",
        "| method | success (mean over seeds, interval) | each seed | wall s | CPU s |",
        "| --- | --- | --- | --- | --- |",
    ]
    names = {e["name"] for e in first[0]["evals"]}  # type: ignore[attr-defined]
    beside = {name: title for name, title in BESIDE.items() if name in names}
    lines += [f"| {title} | {cell(first, name)} | | |" for name, title in beside.items()]
    for method in RECIPES[recipe]:
        runs = found(recipe, method)
        if runs:
            wall, cpu = (
                statistics.median(r["summary"][key] for r in runs)  # type: ignore[index]
                for key in ("seconds", "cpu_seconds")
            )
            title = METHODS[method][0]
            title = title if title.startswith("SFT") else f"SFT, then {title}"
            lines.append(f"| {title} | {cell(runs, 'final')} | {wall:.0f} | {cpu:.0f} |")
    summary, versions = first[0]["summary"], first[0]["versions"]
    tried = f"{TRIED[recipe]}; " if recipe in TRIED else ""
    return [
        *lines,
        "",
        f"Seeds {', '.join(str(r['seed']) for r in first)}; {summary['tasks']} test tasks; "  # type: ignore[index]
        f"{summary['parameters']:,} weights; {warm_start(settings)}; {summary['steps']} steps; "  # type: ignore[index]
        f"recipe `scripts/{config(recipe).name}`; {tried}seconds are medians of whole runs, "
        f"evaluations included, on one core (Python {versions['python']}, "  # type: ignore[index]
        f"torch {versions['torch']}, transformers {versions['transformers']}, "  # type: ignore[index]
        f"trl {versions['trl']}).",  # type: ignore[index]
        "",
        *([SAID[recipe], ""] if recipe in SAID else []),
    ]


def warm_start(settings: dict[str, dict[str, object]]) -> str:
    """What the policy had learned before."""
    if "explore" in settings:
        return f"{settings['explore']['tasks']} tasks explored"
    if settings.get("sft", {}).get("source") == "random":
        return f"SFT on {settings['sft']['demos']} random episodes, for the form of actions"
    if "sft" in settings:
        return f"{settings['sft']['demos']} demonstrations"
    return f"begun from `{settings['model']}`"


def page() -> str:
    """The Markdown of docs/results.md from the JSON that is there."""
    lines = [
        "# Learning results",
        "",
        "Generated by `make results` from `docs/results/*.json`; do not edit. Every figure was",
        "measured with this code: success of sampled episodes (temperature 1) on test tasks whose",
        "initial states do not occur in training. In brackets the 95 % Wilson interval over the",
        "episodes of all seeds together. A seed changes demonstrations, initial weights, order of",
        "tasks and sampling. The methods of a table start from the same supervised warm start",
        "(SFT), which is trained on demonstrations until its dev loss stops falling; the",
        "checkpoint is chosen by success on dev tasks. Wall seconds depend on what else the",
        "machine did; CPU seconds hardly do.",
        "",
        *(
            f"- **{title}**: {f'`{chr(32).join(keys)}`' if keys else 'the recipe as it stands'}."
            for method, (title, keys) in METHODS.items()
            if any(found(recipe, method) for recipe in RECIPES)
        ),
        "",
    ]
    for recipe in RECIPES:
        lines += section(recipe)
    return "\n".join(lines)


def main() -> None:
    """Run what is missing and write the page."""
    parser = argparse.ArgumentParser(description="Regenerate docs/results.md.")
    parser.add_argument("--again", action="store_true", help="run everything anew")
    parser.add_argument("--table", action="store_true", help="only write the page")
    parser.add_argument("--check", action="store_true", help="only compare the page with the JSON")
    parser.add_argument("--recipe", choices=RECIPES, action="append", help="run only this recipe")
    args = parser.parse_args()
    if args.check:
        if PAGE.read_text() != page():
            sys.exit("docs/results.md is not what docs/results/*.json say: results.py --table")
        return
    KEPT.mkdir(parents=True, exist_ok=True)
    for recipe in [] if args.table else args.recipe or RECIPES:
        for method in RECIPES[recipe]:
            for seed in SEEDS:
                path = kept(recipe, method, seed)
                if args.again or not path.exists():
                    print(f"=== {recipe} {method} seed {seed}", flush=True)
                    path.write_text(json.dumps(run(recipe, method, seed), indent=1) + "\n")
    PAGE.write_text(page())
    print(f"wrote {PAGE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
