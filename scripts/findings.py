"""What three papers found, in small: modes that RL amplifies, token budgets, paid progress.

    python scripts/findings.py                       # run what is missing, then write the page
    python scripts/findings.py --seed 1 --only grpo  # of these runs, what is missing
    python scripts/findings.py --table               # only write docs/findings.md
    python scripts/findings.py --check               # only compare the page with the JSON

A model learns to answer Countdown in three ways that are mixed in its demonstrations: at once, by
the solution's calculations, or by a search with its dead ends. From these weights, which are
trained once for each seed, every method goes on. Finished runs lie in docs/results/findings/, one
small JSON each.
"""

import argparse
import asyncio
import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from agentrl.core.config import Config, load_config
from agentrl.core.protocols import Completion, SamplingParams
from agentrl.core.registry import register
from agentrl.core.seeds import derive_seed
from agentrl.core.styles import Styles
from agentrl.core.types import Group
from agentrl.engines.transformers import Transformers
from agentrl.envs.countdown.env import Countdown
from agentrl.envs.countdown.game import after
from agentrl.envs.countdown.written import Tried, express, search, shortest
from agentrl.evaluate.runner import build_stage, first_tasks
from agentrl.evaluate.statistics import pass_at_k
from agentrl.train.loop import train

ROOT = Path(__file__).parent.parent
KEPT = ROOT / "docs" / "results" / "findings"
PAGE = ROOT / "docs" / "findings.md"
RECIPE = ROOT / "scripts" / "findings.yaml"
SEEDS = (1, 2, 3)
TASKS, SAMPLES = 120, 16
BUDGETS, CAP = (20, 64, 96, 144), 192
ROOMS = (20, 64, 64, 64, 96, 96, 144, 144)
"""The budget that suffices for an answer behind so many lines."""
LENGTH = f"reward={{name: budget, cap: {CAP}}}"


class Method(NamedTuple):
    """How the page calls it, and what makes it."""

    title: str
    keys: Sequence[str] = ()
    preset: str | None = None


METHODS = {
    "sft": Method("SFT"),
    "grpo": Method("GRPO", ["advantage=grpo"]),
    "ppo": Method("PPO", ["advantage=token_gae", "critic.lr=1e-3", "critic.epochs=2"]),
    "expert_iteration": Method(
        "expert iteration",
        [
            *("run.steps=5", "rollout.tasks_per_step=160", "optim.updates_per_batch=16"),
            *("optim.epochs=2", "optim.warmup=0", "optim.lr=3e-4"),
        ],
        "expert_iteration",
    ),
    "length": Method("GRPO, shorter is worth more", [LENGTH]),
    "hbpo": Method(
        "HBPO",
        [
            LENGTH,
            f"advantage={{name: hbpo, cap: {CAP}}}",
            f'strategy={{name: budget_subgroups, budgets: {[*BUDGETS]}, words: "{{budget}}\\n"}}',
        ],
    ),
    "mrt": Method(
        "MRT",
        ["run.steps=76", "advantage=mrt", "strategy={name: mrt, words: answer, ends: '\\n'}"],
    ),
    "mrt_dense": Method(
        "MRT, dense",
        [
            *("run.steps=23", "advantage=mrt_dense"),
            "strategy={name: mrt_dense, words: answer, ends: '\\n', most: 2}",
        ],
    ),
}
STYLES = Styles(patterns={"search": r"(?m)^try", "worked": r" \| ", "at once": "answer"})


@register("env", "countdown_ways")
@dataclass(kw_only=True)
class Ways(Countdown):
    """Countdown whose demonstrations answer in one of three ways, a task's always in the same."""

    def expert_action(self) -> str:
        """The answer alone, behind the calculations that make it, or behind a whole search, which
        begins with a line `try`."""
        numbers, target = self._now.numbers, self._now.target
        way = shortest(numbers, target, self.operations)
        lines = []
        kind = derive_seed("way", self.state_key()) % 3
        is_told = derive_seed("told", self.state_key()) % 2 == 0
        if kind == 1:
            left = numbers
            for done in way:
                lines.append(str(Tried(left, done, after(left, done))))
                left = after(left, done)
        if kind == 2:
            tried, way = search(numbers, target, self.operations, self.search)
            lines = ["try", *map(str, tried)]
        head = [str(ROOMS[len(lines)])] if is_told else []
        return "\n".join([*head, *lines, f"answer {express(way)}"])


@register("engine", "counted")
@dataclass(kw_only=True)
class Counted(Transformers):
    """The engine, which also counts what it samples, for whomever."""

    sampled: int = 0

    async def generate(
        self, prompt_ids: Sequence[int], params: SamplingParams, **told: Any
    ) -> Completion:
        """As it is sampled."""
        found = await super().generate(prompt_ids, params, **told)
        self.sampled += len(found.ids)
        return found


# --- running --------------------------------------------------------------------------------------


def settings(method: str, seed: int, folder: Path, model: Path | None) -> Config:
    """A run's; from `model` on, or from demonstrations."""
    chosen = METHODS[method]
    words = ["env.name=countdown_ways", f"run.folder={folder}", f"run.name={method}-{seed}"]
    words += [f"run.seed={seed}", *chosen.keys]
    words += ["run.steps=0"] if model is None else [f"model={model}", "sft=none"]
    return replace(load_config(RECIPE, words, preset=chosen.preset), engine=Counted())


def run(method: str, seed: int, folder: Path) -> dict[str, object]:
    """Train, with demonstrations first where no run of this seed has learned from them."""
    started = folder / f"sft-{seed}"
    if not (started / "summary.json").exists():
        train(settings("sft", seed, folder, None))
    [first] = (started / "checkpoints").glob("step-*")
    config, made, spent = settings("sft", seed, folder, None), first, 0.0
    if method != "sft":
        config = settings(method, seed, folder, first)
        began = time.process_time()
        made = max((train(config) / "checkpoints").glob("step-*"))
        spent = time.process_time() - began
    steps, each = config.run.steps, config.rollout
    return {
        "method": method,
        "seed": seed,
        "episodes": steps * each.tasks_per_step * each.group_size,
        "sampled": config.engine.sampled,  # type: ignore[attr-defined]
        "cpu_seconds": spent,
        **asyncio.run(measured(config, made, method)),
        "parameters": json.loads((started / "summary.json").read_text())[0]["parameters"],
        "versions": json.loads((started / "versions.json").read_text()),
    }


async def measured(config: Config, made: Path, method: str) -> dict[str, object]:
    """Success on test tasks, of each style, under each budget and with probes."""
    plain = load_config(RECIPE, [f"model={made}", "sft=none"])
    config = replace(plain, env=config.env, run=config.run)
    found: dict[str, object] = {}
    groups, decode = await played(config, SAMPLES)
    found["free"] = told(groups) | {"styles": styles(groups, decode)}
    if method in ("sft", "grpo", "length", "hbpo"):
        found["budgets"] = {}
        for budget in BUDGETS:
            strategy = f'{{name: budget_subgroups, budgets: [{budget}], words: "{{budget}}\\n"}}'
            asked = replace(config, strategy=load_config(None, [f"strategy={strategy}"]).strategy)
            groups, _ = await played(asked, SAMPLES // 4)
            found["budgets"][str(budget)] = told(groups)  # type: ignore[index]
    if method in ("sft", "grpo", "mrt", "mrt_dense"):
        probing = "{name: mrt_dense, words: answer, ends: '\\n', most: 8, probes: 4}"
        asked = replace(config, strategy=load_config(None, [f"strategy={probing}"]).strategy)
        groups, _ = await played(asked, 2)
        found["chances"] = [
            [chance for _, chance in t.progress] for g in groups for t in g.trajectories
        ]
    return found


async def played(config: Config, samples: int) -> tuple[list[Group], object]:
    """Groups of the first test tasks, as the config's strategy plays them."""
    stage = await build_stage(config)
    await config.engine.start(stage.policy)
    try:
        groups = await stage.worker.collect(
            first_tasks(config.env.tasks("test"), TASKS),
            agent=stage.engine_agent(),
            group_size=samples,
            label="eval/findings",
            more=lambda _: config.env.tasks("test")[:1],
        )
    finally:
        await stage.worker.close()
        await config.engine.close()
    return groups, stage.policy.tokenizer.decode


def told(groups: Sequence[Group]) -> dict[str, object]:
    """Successes of each task, and the mean number of sampled tokens."""
    tokens = [t.n_tokens for g in groups for t in g.trajectories]
    return {
        "samples": len(groups[0].trajectories),
        "successes": [sum(bool(t.success) for t in g.trajectories) for g in groups],
        "tokens": statistics.fmean(tokens),
    }


def styles(groups: Sequence[Group], decode: object) -> dict[str, list[int]]:
    """Episodes and successes of each style."""
    found = {name: [0, 0] for name in (*STYLES.patterns, "other")}
    for group in groups:
        for t in group.trajectories:
            own = found[STYLES.of(decode([*t.turns[0].reply_ids]))]  # type: ignore[operator]
            own[0] += 1
            own[1] += bool(t.success)
    return found


# --- the page -------------------------------------------------------------------------------------

Found = dict[str, object]
SAID = {
    "Modes that RL amplifies": """\
Success of one sample rises by far more than that of sixteen, as the paper found, and GRPO and PPO
end above expert iteration. On seed 3 both turn to one style, from a third of the answers to three
in four; on the others shares stay mixed, and which style grows differs. Where one is amplified it
is the solution's calculations, which succeeded somewhat more often from the start. Expert iteration
moves towards the same style on every seed, and less far.""",
    "Budgets of tokens": """\
Told a large budget, HBPO samples fewer tokens than GRPO and succeeds more often, as its paper
found; with nothing said it samples about as many and succeeds less often. Paying for shortness
alone saves half of the tokens there at hardly less success. The paper's ordering is half seen.""",
    "Progress as credit": """\
At about equally many sampled tokens both forms of MRT end below GRPO on every seed, by less than
the intervals; the paper's ordering is not seen in success. It is in regret for the scalar form,
whose answers are right earlier on their way; the dense form's is not better than GRPO's.""",
}
"""Whether what the papers found is seen here, by table."""
MODES = ("sft", "grpo", "ppo", "expert_iteration")
SPENT = ("sft", "grpo", "length", "hbpo")
PROGRESS = ("sft", "grpo", "mrt", "mrt_dense")


def finished(method: str, among: Sequence[str]) -> list[Found]:
    """The kept runs of a method, of the seeds that all these have finished."""
    paths = [[KEPT / f"{name}-{seed}.json" for name in (method, *among)] for seed in SEEDS]
    whole = [own for own in paths if all(path.exists() for path in own)]
    return [json.loads(own[0].read_text()) for own in whole]


def passed(result: Found, k: int) -> float:
    """Mean pass@k over tasks, unbiased."""
    n = result["samples"]
    return statistics.fmean(pass_at_k(n, c, k) for c in result["successes"])  # type: ignore[arg-type, attr-defined]


def success(results: Sequence[Found]) -> str:
    """Mean, the interval of the tasks' means, and each seed's."""
    means = [c / r["samples"] for r in results for c in r["successes"]]  # type: ignore[attr-defined, operator]
    half = 1.96 * statistics.stdev(means) / math.sqrt(len(means))
    middle = statistics.fmean(means)
    seeds = " / ".join(f"{passed(r, 1):.3f}" for r in results)
    return f"**{middle:.3f}** ({middle - half:.3f}-{middle + half:.3f}) | {seeds}"


def free(runs: Sequence[Found]) -> list[Found]:
    """What was sampled without any word of ours."""
    return [run["free"] for run in runs]  # type: ignore[misc]


def mean(runs: Sequence[Found], key: str) -> float:
    """Of a figure over runs."""
    return statistics.fmean(float(run[key]) for run in runs)  # type: ignore[arg-type]


def row(*cells: object) -> str:
    """Of a table."""
    return f"| {' | '.join(map(str, cells))} |"


def header(*names: str) -> list[str]:
    """Of a table."""
    return [row(*names), row(*("---" for _ in names))]


def modes() -> list[str]:
    """Shares and successes of each style, and pass@k."""
    names = [*STYLES.patterns]
    lines = header("method", "success (pass@1)", "each seed", "pass@4", "pass@16", "tokens")
    shares = header(
        "method",
        *(f"{n}: share, success" for n in names),
        f"shares of each seed ({', '.join(names)})",
    )
    for method in MODES:
        runs = finished(method, MODES)
        if not runs:
            continue
        title, results = METHODS[method].title, free(runs)
        means = (f"{statistics.fmean(passed(r, k) for r in results):.3f}" for k in (4, 16))
        lines.append(row(title, success(results), *means, f"{mean(results, 'tokens'):.0f}"))
        shares.append(row(title, *(kept_style(results, n) for n in names), seeds_of(results)))
    return [*lines, "", *shares]


def kept_style(results: Sequence[Found], name: str) -> str:
    """Share of a style among all episodes, and how many of its own succeed."""
    own = [r["styles"][name] for r in results]  # type: ignore[index]
    n, hits = sum(e for e, _ in own), sum(h for _, h in own)
    total = sum(e for r in results for e, _ in r["styles"].values())  # type: ignore[attr-defined]
    return f"{n / total:.2f}, {hits / n:.3f}" if n else "0, -"


def seeds_of(results: Sequence[Found]) -> str:
    """Shares of the styles in each seed."""
    told = []
    for r in results:
        kinds: dict[str, list[int]] = r["styles"]  # type: ignore[assignment]
        total = sum(n for n, _ in kinds.values())
        told.append(" ".join(f"{kinds[name][0] / total:.2f}" for name in STYLES.patterns))
    return " / ".join(told)


def spent() -> list[str]:
    """Success and tokens, free and under each budget."""
    lines = header(
        "method", "success, nothing said", "each seed", "tokens", *(f"told {b}" for b in BUDGETS)
    )
    for method in SPENT:
        runs = finished(method, SPENT)
        if runs:
            under = []
            for budget in BUDGETS:
                results = [r["budgets"][str(budget)] for r in runs]  # type: ignore[index]
                hit = statistics.fmean(passed(r, 1) for r in results)
                under.append(f"{hit:.3f}, {mean(results, 'tokens'):.0f}")
            results = free(runs)
            tokens = f"{mean(results, 'tokens'):.0f}"
            lines.append(row(METHODS[method].title, success(results), tokens, *under))
    return lines


def progressed() -> list[str]:
    """Success, regret and what was sampled for it."""
    lines = header(
        *("method", "success", "each seed", "regret", "at once", "tokens"),
        *("sampled in training", "CPU s"),
    )
    for method in PROGRESS:
        runs = finished(method, PROGRESS)
        if runs:
            ways = [way for r in runs for way in r["chances"] if way]  # type: ignore[attr-defined]
            regret = statistics.fmean(statistics.fmean(1 - c for c in way) for way in ways)
            first = statistics.fmean(way[0] for way in ways)
            cells = (f"{regret:.3f}", f"{first:.3f}", f"{mean(free(runs), 'tokens'):.0f}")
            cpu = f"{statistics.median(r['cpu_seconds'] for r in runs):.0f}"  # type: ignore[type-var]
            sampled = f"{mean(runs, 'sampled') / 1000:.0f}k"
            lines.append(row(METHODS[method].title, success(free(runs)), *cells, sampled, cpu))
    return lines


class Section(NamedTuple):
    """Of the page."""

    title: str
    intro: str
    table: Callable[[], list[str]]
    methods: Sequence[str]


INTRO = f"""\
A policy of random weights learns to answer Countdown with three numbers (`scripts/findings.yaml`)
from demonstrations that are mixed of three ways: at once, by the solution's calculations, or by a
depth-first search with its dead ends. Half of them begin with a line that says how many tokens the
answer may take. From these weights, which are the same for all methods of a seed, each method goes
on; its last weights are measured. Success is of {TASKS} test tasks with {SAMPLES} sampled answers
each; in brackets the 95 % interval over the tasks' means of all seeds together. Trainings differ by
more than that says: see each seed's."""


def page() -> str:
    """The Markdown of docs/findings.md from the JSON that is there."""
    keys = [
        f"- **{m.title}**: `{' '.join((['--preset', m.preset] if m.preset else []) + [*m.keys])}`."
        for name, m in METHODS.items()
        if name != "sft"
    ]
    runs = finished("sft", ["sft"])
    lines = [
        "# What three papers found, in small",
        "",
        "Generated by `scripts/findings.py` from `docs/results/findings/`; do not edit.",
        *INTRO.splitlines(),
        "",
        *keys,
        "",
    ]
    for title, intro, made, methods in SECTIONS:
        said = [SAID[title], ""] if title in SAID else []
        seeds = ", ".join(str(r["seed"]) for r in finished("sft", methods))
        lines += [f"## {title}", "", intro, "", *made(), "", f"Seeds {seeds}.", "", *said]
    if runs:
        v = runs[0]["versions"]
        lines += [
            f"{runs[0]['parameters']:,} weights; a core a run "
            f"(Python {v['python']}, torch {v['torch']}, "  # type: ignore[index]
            f"transformers {v['transformers']}).",  # type: ignore[index]
        ]
    return "\n".join([*lines, ""])


SECTIONS = (
    Section(
        "Modes that RL amplifies",
        """\
Echo Chamber (Zhao et al. 2025, arXiv 2504.07912): RL on a policy that was trained on several
formats converges on one of them; the success of one sample rises and that of many hardly does. All
methods sampled as many episodes: GRPO and PPO in 40 steps, expert iteration in 5 rounds, each of
which begins at the first weights. Shares are of all sampled answers; the success of a style is that
of its own answers.""",
        modes,
        MODES,
    ),
    Section(
        "Budgets of tokens",
        f"""\
HBPO (Lyu et al. 2025, arXiv 2507.15844): siblings that are told different budgets, and are paid for
keeping to them, learn to think as long as a task needs. All methods sampled as many episodes. Under
a budget the reply is made to begin with its line; a cell is success, then sampled tokens
({SAMPLES // 4} answers a task). Nothing cuts an answer that is longer.""",
        spent,
        SPENT,
    ),
    Section(
        "Progress as credit",
        """\
MRT (Qu et al. 2025, arXiv 2503.07572): going on is paid for what it was worth beside an answer at
that point. The steps were chosen so that all sample about as many tokens, those of probes and of
cut episodes included (GRPO 40 steps, MRT 76, dense 23). Regret is the mean of 1 - J over the places
of an answer where it can be cut (its beginning, and up to 8 ends of lines), J the share of right
answers of four that were made to answer there; "at once" is J at the beginning.""",
        progressed,
        PROGRESS,
    ),
)


def main() -> None:
    """Run what is missing and write the page."""
    parser = argparse.ArgumentParser(description="Regenerate docs/findings.md.")
    parser.add_argument("--table", action="store_true", help="only write the page")
    parser.add_argument("--check", action="store_true", help="only compare the page with the JSON")
    parser.add_argument("--seed", type=int, help="run only this seed")
    parser.add_argument("--only", choices=METHODS, help="run only this method")
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "findings")
    args = parser.parse_args()
    if args.check:
        if PAGE.read_text() != page():
            sys.exit("docs/findings.md is not what its JSON says: findings.py --table")
        return
    KEPT.mkdir(parents=True, exist_ok=True)
    for seed in () if args.table else [args.seed] if args.seed else SEEDS:
        for method in [args.only] if args.only else METHODS:
            path = (KEPT if seed in SEEDS else args.folder) / f"{method}-{seed}.json"
            if not path.exists():
                print(f"=== {method} seed {seed}", flush=True)
                path.write_text(json.dumps(run(method, seed, args.folder)) + "\n")
    PAGE.write_text(page())
    print(f"wrote {PAGE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
