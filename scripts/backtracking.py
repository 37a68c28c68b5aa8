"""To backtrack or not: searching in writing beside answering at once, at equal compute.

    python scripts/backtracking.py            # run what is missing, then write the page
    python scripts/backtracking.py --table    # only write docs/backtracking.md
    python scripts/backtracking.py --check    # only compare the page with the JSON

The comparison of "To Backtrack or Not to Backtrack" (Qin et al. 2025, arXiv 2504.07052) in small:
the same model learns to search, or to give the solution alone, which it may then do several times
for the price of one search. Countdown and 4x4 Sudoku, before and after GRPO. Finished runs lie in
docs/results/backtracking/, one small JSON each.
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

ROOT = Path(__file__).parent.parent
KEPT = ROOT / "docs" / "results" / "backtracking"
PAGE = ROOT / "docs" / "backtracking.md"
RECIPES = {
    "countdown": ROOT / "scripts" / "backtracking-countdown.yaml",
    "sudoku": ROOT / "scripts" / "backtracking-sudoku.yaml",
}
FORMATS = {
    "answer": ("countdown", "answer at once", ["env.format=answer"]),
    "trace": (
        "countdown",
        "search in writing, then answer",
        ["env.format=trace", "sampling.max_tokens=400", "sft.batch_rows=16"],
    ),
    "in_order": ("sudoku", "the solution, cell by cell", ["env.expert=in_order"]),
    "search": ("sudoku", "depth first, taking back", ["env.expert=search"]),
}
"""Name -> its puzzle, how the page calls it, and its settings; of a puzzle, the search last."""
SEEDS = (1, 2, 3)
ASKED = {"countdown": (200, 16), "sudoku": (50, 4)}
"""Puzzle -> test tasks, and samples of each."""
AFTER = {"sft": "SFT", "grpo": "SFT, then GRPO"}
SAID = {
    "countdown": (
        "At equal cost answering at once and trying again solves far more than one search, before "
        "and after GRPO, as the paper found for this puzzle; here one search solves even less than "
        "one answer. GRPO raises one attempt of either by far more than sixteen."
    ),
    "sudoku": (
        "No difference, before or after GRPO, at equal compute (both cost the same): the "
        "paper's gain from taking back is not seen. A random player that takes any digit that "
        "fits solves .44, so neither format has learned the puzzle: SFT's dev loss still fell "
        "at its last step (up to nine beyond 350, as the warm start then did), and twelve steps"
        " of GRPO moved nothing; what is compared is two unfinished policies. The recipe was "
        "changed after a seed that counts: at first a refused digit ended the episode, and seed"
        " 1 solved .09 cell by cell (.12 after GRPO) and .06 with taking back (.09). Since a "
        "refusal costs a turn only, a seed that does not count had 3 of 120 cell by cell and 46"
        " of 120 with taking back after SFT, which the three seeds here do not repeat."
    ),
}
"""Puzzle -> whether what the paper found is seen here."""
LAYERS, HIDDEN, KEYS, INNER = 2, 128, 64, 256
"""The recipes' model."""


def flops(tokens: float, samples: float = 1) -> float:
    """Of sampling so many tokens (the paper's count: matrices, and attention over what came)."""
    a_token = 2 * HIDDEN**2 + 2 * HIDDEN * KEYS + 3 * HIDDEN * INNER
    return samples * LAYERS * (a_token * tokens + HIDDEN * tokens * (tokens + 1) / 2)


def cost(puzzle: str, tokens: float) -> float:
    """Of an episode with so many sampled tokens: megaflops, or in Sudoku tokens, where a turn
    reads two grids in either format."""
    return flops(tokens) / 1e6 if puzzle == "countdown" else tokens


def run(style: str, seed: int) -> dict[str, object]:
    """Train on demonstrations, go on with GRPO, and sample both policies on every test task."""
    variables = {**os.environ, "OMP_NUM_THREADS": "1"}
    agentrl = [sys.executable, "-m", "agentrl"]
    puzzle, _, settings = FORMATS[style]
    tasks, samples = ASKED[puzzle]
    with tempfile.TemporaryDirectory() as folder:
        kept: dict[str, object] = {"format": style, "seed": seed}
        begun = [f"model={folder}/sft/checkpoints/step-000000", "sft=none"]
        only = {
            "sft": [*settings, "run.steps=0"],
            "grpo": [*(word for word in settings if not word.startswith("sft.")), *begun],
        }
        for when in AFTER:
            made = Path(folder) / when
            words = [f"run.folder={folder}", f"run.name={when}", f"run.seed={seed}"]
            call(agentrl, ["train", str(RECIPES[puzzle]), *words, *only[when]], variables)
            out = Path(folder) / f"{when}.json"
            asked = ["--tasks", str(tasks), "--samples", str(samples), "--out", str(out)]
            call(agentrl, ["eval", str(made), *asked], variables)
            [result] = [e for e in json.loads(out.read_text()) if e["name"] == "checkpoint"]
            [summary] = json.loads((made / "summary.json").read_text())
            kept[when] = {key: result[key] for key in ("success", "tokens", "turns", "pass_at_k")}
            kept[f"{when}_cpu_seconds"] = summary["cpu_seconds"]
        kept["parameters"] = summary["parameters"]
        kept["versions"] = json.loads((made / "versions.json").read_text())
    return kept


def call(agentrl: list[str], words: list[str], variables: dict[str, str]) -> None:
    """One command, with a deadline."""
    subprocess.run([*agentrl, *words], check=True, env=variables, timeout=1200)


def found(style: str) -> list[dict[str, object]]:
    """The finished runs of a format."""
    paths = [KEPT / f"{style}-{seed}.json" for seed in SEEDS]
    return [json.loads(path.read_text()) for path in paths if path.exists()]


def page() -> str:
    """The Markdown of docs/backtracking.md from the JSON that is there."""
    lines = [
        "# To backtrack or not",
        "",
        "Generated by `scripts/backtracking.py` from `docs/results/backtracking/`; do not edit.",
        "From random weights a model learns to search, or to give the solution alone; then GRPO",
        "goes on from there. pass@k is the share of test tasks that one of k sampled episodes",
        "solved (unbiased; mean over seeds, then each seed's for k = 1). What a search costs is",
        "counted in episodes of the other format: in Countdown by the floating point operations of",
        "the sampled tokens as the paper counts them (arXiv 2504.07052), in Sudoku by tokens, as",
        "every turn reads as much in both.",
        "",
    ]
    for puzzle in RECIPES:
        lines += section(puzzle)
    return "\n".join(lines)


def section(puzzle: str) -> list[str]:
    """A puzzle's table, and what the formats solve at the same cost."""
    tasks, samples = ASKED[puzzle]
    ks = [k for k in (1, 2, 4, 8, 16) if k <= samples]
    styles = [style for style, (of, *_) in FORMATS.items() if of == puzzle]
    every = [r for style in styles for r in found(style)]
    if len(every) < len(styles) * len(SEEDS):
        return []
    lines = [
        f"## {puzzle}",
        "",
        f"| format | after | {' | '.join(f'pass@{k}' for k in ks)} | each seed, k = 1 | turns "
        "| tokens | cost |",
        f"| --- | --- | {' | '.join('---' for _ in ks)} | --- | --- | --- | --- |",
    ]
    said = []
    for when, title in AFTER.items():
        first, search = (mean(style, when, ks) for style in styles)
        times = cost(puzzle, search["tokens"]) / cost(puzzle, first["tokens"])
        k = max(k for k in ks if k <= max(1, round(times)))
        for style, row, price in zip(styles, (first, search), (1.0, times), strict=True):
            seeds = " / ".join(f"{solved(r[when], 1):.3f}" for r in found(style))
            shares = " | ".join(f"{row[f'pass@{k}']:.3f}" for k in ks)
            lines.append(
                f"| {FORMATS[style][1]} | {title} | {shares} | {seeds} | {row['turns']:.1f} "
                f"| {row['tokens']:.0f} | {price:.1f} |"
            )
        said.append(
            f"- After {title} one search costs as much as {times:.1f} of the others and solves "
            f"{search['pass@1']:.3f}; {k} of the others {'solves' if k == 1 else 'solve'} "
            f"{first[f'pass@{k}']:.3f}."
        )
    cpu = [statistics.median(r[f"{when}_cpu_seconds"] for r in every) for when in AFTER]  # type: ignore[type-var]
    v = every[0]["versions"]
    return [
        *lines,
        "",
        *said,
        "",
        *([SAID[puzzle], ""] if puzzle in SAID else []),
        f"{tasks} test tasks, {samples} samples each; {every[0]['parameters']:,} weights; recipe "
        f"`scripts/{RECIPES[puzzle].name}`; seeds {', '.join(map(str, SEEDS))}; {cpu[0]:.0f} CPU "
        f"seconds of SFT and {cpu[1]:.0f} of GRPO (medians over formats and seeds; Python "
        f"{v['python']}, torch {v['torch']}, transformers {v['transformers']}).",  # type: ignore[index]
        "",
    ]


def mean(style: str, when: str, ks: list[int]) -> dict[str, float]:
    """What a format's policies did, over seeds."""
    runs = [r[when] for r in found(style)]
    told = {f"pass@{k}": statistics.fmean(solved(r, k) for r in runs) for k in ks}
    for name in ("turns", "tokens"):
        told[name] = statistics.fmean(r[name] for r in runs)  # type: ignore[index]
    return told


def solved(result: object, k: int) -> float:
    """pass@k of one evaluation."""
    return float(result["success"] if k == 1 else result["pass_at_k"][str(k)])  # type: ignore[index]


def main() -> None:
    """Run what is missing and write the page."""
    parser = argparse.ArgumentParser(description="Regenerate docs/backtracking.md.")
    parser.add_argument("--table", action="store_true", help="only write the page")
    parser.add_argument("--check", action="store_true", help="only compare the page with the JSON")
    parser.add_argument("--seed", type=int, choices=SEEDS, help="run only this seed")
    parser.add_argument("--puzzle", choices=RECIPES, help="run only this puzzle")
    args = parser.parse_args()
    if args.check:
        if PAGE.read_text() != page():
            sys.exit("docs/backtracking.md is not what its JSON says: backtracking.py --table")
        return
    KEPT.mkdir(parents=True, exist_ok=True)
    seeds = [args.seed] if args.seed else SEEDS
    for seed, style in () if args.table else itertools.product(seeds, FORMATS):
        path = KEPT / f"{style}-{seed}.json"
        if not path.exists() and args.puzzle in (None, FORMATS[style][0]):
            print(f"=== {style} seed {seed}", flush=True)
            path.write_text(json.dumps(run(style, seed)) + "\n")
    PAGE.write_text(page())
    print(f"wrote {PAGE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
