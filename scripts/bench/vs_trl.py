"""Whole training steps and their memory: our loop against TRL's `GRPOTrainer`.

    python scripts/bench/vs_trl.py --json docs/results/bench/vs_trl.json

Both train the same float32 model on the same env (ours runs under TRL through
`agentrl.train.trl.environment_factory`): 64 episodes of 8 tasks in groups of 8, of 2 or of 6 turns,
one update on all of them. The model says random words and ends a reply after 12 of them in the mean
(64 at most), so both sample as many tokens, up to chance; the tokens of each arm are reported.
Every reply is a call of the env's one tool for TRL, and an action for us. TRL's loop knows no end
of an episode, so it is told the number of calls; its last reply is not put to the env.

Each arm is a process of its own with one model, and the processes take turns step by step, so that
the peak of one's memory is not another's. Memory counts from the loaded idle model (libraries
loaded, trainers built, optimiser and caches not yet). TRL runs without logging, progress bars,
checkpoints and activation checkpointing, with micro-batches of 8 rows. Ours has micro-batches of as
many tokens, writes its episodes as in every run, has no sinks, and samples without lockstep
(`run.deterministic=false`). The first step of each arm is not counted.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import fmean
from typing import Any, NoReturn, cast

import measure
import torch
from measure import Report, Spread, forget_peak, interleaved, need, peak_mib, ratios, show
from subjects import Words, build

from agentrl.core.config import load_config
from agentrl.core.registry import register
from agentrl.track.trajectories import EpisodeRecord
from agentrl.train.loop import train

ARMS: Mapping[str, Sequence[str]] = {
    "generate": ("engine=generate", "scorer=padded"),
    "engine": ("engine=transformers", "scorer=padded"),
    "engine and trie": ("engine=transformers", "scorer=trie"),
}
"""Ours, by settings."""
PEER = "TRL"
GROUPS, SIBLINGS, LONGEST, ROWS = 8, 8, 64, 8
"""Tasks of a step, episodes of each, most tokens of a reply, rows of TRL's micro-batch."""
GOALS = {2: (1.5, 2.0), 6: (2.5, 4.0)}
"""Turns -> steps a second over TRL's with the engine alone, and with the trie."""
WAIT_S = 600.0
UNEQUAL = 0.25
"""How far the sampled tokens of a step may be apart; chance alone makes it 0.04 of five steps."""


@dataclass(frozen=True)
class Stepped:
    """What a child says of one step."""

    seconds: float
    tokens: float
    """Sampled in the step."""
    mib: float
    """Peak so far, beyond the loaded idle model."""


class _EnoughError(Exception):
    """The parent wants no more steps."""


class Pace:
    """A child's side: waits for the word before each step, and reports each."""

    def __init__(self, line: Connection) -> None:
        self.line, self.began, self.idle = line, 0.0, 0.0

    def ready(self) -> None:
        """The model is loaded and idle."""
        self.idle = forget_peak()
        self._wait()

    def done(self, tokens: float) -> None:
        """A step is over. Raises `_EnoughError`."""
        spent = time.perf_counter() - self.began
        self.line.send(Stepped(spent, tokens, peak_mib() - self.idle))
        self._wait()

    def _wait(self) -> None:
        if not self.line.recv():
            raise _EnoughError
        self.began = time.perf_counter()


@register("track", "bench_pace")
@dataclass(kw_only=True)
class PaceSink:
    """Lets our training loop take a step when the parent says so."""

    def __post_init__(self) -> None:
        self.pace = PACES[0]

    def open(self, folder: Path, name: str, total_steps: int, *, resumed: int = 0) -> None:
        """The model is loaded."""
        self.pace.ready()

    def episodes(self, step: int, episodes: Sequence[EpisodeRecord]) -> None:
        """Nothing is shown."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """The step is over."""
        self.pace.done(metrics["time/tokens_per_s"] * metrics["time/step_s"])

    def evaluation(self, step: int, name: str, numbers: Mapping[str, float]) -> None:
        """There are none."""

    def say(self, text: str) -> None:
        """Nobody listens."""

    def close(self) -> None:
        """Nothing is open."""


PACES: list[Pace] = []


def ours(settings: Sequence[str], model: Path, turns: int, budget: int, pace: Pace) -> NoReturn:
    """Train until the parent has enough."""
    PACES.append(pace)
    with tempfile.TemporaryDirectory() as folder:
        config = load_config(
            None,
            [
                f"run={{folder: {folder}, steps: 10000, deterministic: false, device: cpu}}",
                f"model={model}",
                f"env={{name: bench_words, turns: {turns}}}",
                f"sampling.max_tokens={LONGEST}",
                f"rollout={{tasks_per_step: {GROUPS}, group_size: {SIBLINGS}, max_turns: {turns}, "
                "deadline_s: 900, engine_timeout_s: 900}",
                f"optim={{lr: 1.0e-6, tokens_per_microbatch: {budget}}}",
                "eval={every: 0, final_tasks: 0, baselines: false}",
                "track=[bench_pace]",
                *settings,
            ],
        )
        train(config)
    raise RuntimeError("the run ended before the parent had enough")


def theirs(model: Path, turns: int, pace: Pace) -> None:
    """Train with TRL until the parent has enough."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    from agentrl.train.trl import environment_factory, task_dataset

    env = Words(turns=turns)
    with environment_factory(env) as factory:
        trainer: Any = GRPOTrainer(
            model=AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32),
            processing_class=AutoTokenizer.from_pretrained(model),
            environment_factory=cast("Any", factory),
            train_dataset=task_dataset(env, "train"),
            args=GRPOConfig(
                output_dir="never-written",
                per_device_train_batch_size=ROWS,
                gradient_accumulation_steps=GROUPS * SIBLINGS // ROWS,
                num_generations=SIBLINGS,
                max_completion_length=4000,
                max_tool_calling_iterations=turns - 1,
                generation_kwargs={"max_new_tokens": LONGEST},
                max_steps=10000,
                learning_rate=1e-6,
                report_to="none",
                logging_strategy="no",
                save_strategy="no",
                use_cpu=True,
                bf16=False,
                disable_tqdm=True,
                activation_checkpointing=False,
            ),
        )

        class Steps(TrainerCallback):
            """Reports each optimiser step."""

            def on_step_end(self, *_: object, **__: object) -> None:
                mean = trainer._metrics["train"]["completions/mean_length"][-1]
                pace.done(mean * GROUPS * SIBLINGS)

        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(Steps())
        pace.ready()
        trainer.train()


def child(arm: str, model: Path, turns: int, threads: int, budget: int, line: Connection) -> None:
    """A process that trains one arm, step by step."""
    import pyarrow.parquet  # noqa: F401 - a library that both come to use is no memory of a step

    torch.set_num_threads(threads)
    pace = Pace(line)
    try:
        if arm == PEER:
            theirs(model, turns, pace)
        else:
            ours(ARMS[arm], model, turns, budget, pace)
    except _EnoughError:
        return


@dataclass
class Arm:
    """The parent's side of a child."""

    name: str
    process: multiprocessing.process.BaseProcess
    line: Connection
    steps: list[Stepped]

    def __call__(self) -> float:
        """Let it take a step; its seconds."""
        try:
            self.line.send(True)
            if not self.line.poll(WAIT_S):
                raise TimeoutError(f"no step within {WAIT_S:g} s")
            self.steps.append(self.line.recv())
        except (EOFError, OSError) as error:
            sys.exit(f"{self.name}: the process ended or hung ({error!r}); see its error above")
        return self.steps[-1].seconds

    def close(self) -> None:
        """End it."""
        if self.process.is_alive():
            with suppress(OSError):
                self.line.send(False)
            self.process.join(10)
        if self.process.is_alive():
            self.process.kill()
        self.process.join()


def opened(arm: str, model: Path, turns: int, threads: int, budget: int, closing: ExitStack) -> Arm:
    """Start a child; its first step, which warms it up, is waited for and forgotten."""
    context = multiprocessing.get_context("spawn")
    mine, its = context.Pipe()
    process = context.Process(target=child, args=(arm, model, turns, threads, budget, its))
    process.start()
    its.close()
    made = Arm(arm, process, mine, [])
    closing.callback(made.close)
    made()
    made.steps.clear()
    return made


def compared(
    turns: int, model: Path, arguments: argparse.Namespace, report: Report
) -> dict[str, dict[str, Any]]:
    """All arms at one number of turns."""
    budget = ROWS * (82 + 52 * turns)  # a row's tokens: prompt 122, replies 12, observations 40
    with ExitStack() as closing:
        arms: dict[str, Callable[[], float]] = {}
        children: dict[str, Arm] = {}
        for name in (PEER, *arguments.arms):
            children[name] = opened(name, model, turns, arguments.threads, budget, closing)
            arms[name] = children[name]
        times = interleaved(arms, arguments.repeats)
    found: dict[str, dict[str, Any]] = {}
    means = {name: fmean(step.tokens for step in one.steps) for name, one in children.items()}
    for name, one in children.items():
        if abs(means[name] / means[PEER] - 1) > UNEQUAL:
            sys.exit(f"{name} samples {means[name]:.0f} tokens a step, {PEER} {means[PEER]:.0f}")
        found[name] = {
            "ratio": ratios(times[PEER], times[name]),
            "seconds": Spread.of(times[name]),
            "tokens": means[name],
            "peak_mib": max(step.mib for step in one.steps),
        }
        report.case(arm=name, turns=turns, size=arguments.size, **found[name])
    return found


def main() -> None:
    """Measure both numbers of turns and name the figures."""
    options = measure.parser(__doc__ or "", threads=2)
    options.add_argument("--size", default="0.65M", help="of the model (default %(default)s)")
    options.add_argument("--turns", type=int, nargs="+", default=[2, 6], help="default 2 6")
    options.add_argument(
        "--arms", nargs="+", choices=ARMS, default=list(ARMS), help="of ours (default: all)"
    )
    arguments = options.parse_args()
    need("trl", "1.16")
    report = Report(bench="vs_trl", arguments=arguments)
    rows, memory = [], []
    with tempfile.TemporaryDirectory() as folder:
        sizes = [arguments.size, *(["4M"] if arguments.full else [])]
        for arguments.size in sizes:
            model = Path(folder) / arguments.size
            build(arguments.size, seed=arguments.seed, ends=12.0).save(model)
            for turns in arguments.turns:
                found = compared(turns, model, arguments, report)
                for name, of in found.items():
                    rows.append(
                        [
                            f"{arguments.size} {turns} turns: {name}",
                            of["ratio"].text(),
                            of["seconds"].text(),
                            f"{of['tokens']:.0f}",
                            f"{of['peak_mib']:.0f}",
                        ]
                    )
                if arguments.size == sizes[0]:
                    figures(turns, found, report)
                memory += [
                    found[name]["peak_mib"] / found[PEER]["peak_mib"]
                    for name in found
                    if name == "engine and trie"
                ]
    show(
        "Training steps, TRL's seconds over ours",
        ["arm", "ratio", "seconds a step", "tokens", "peak MiB"],
        rows,
    )
    if memory:
        report.figure("peak_memory_ratio", max(memory), "at most 1")
    report.finish()


def figures(turns: int, found: Mapping[str, Mapping[str, Any]], report: Report) -> None:
    """The ratios by which the goals are judged."""
    alone, with_trie = GOALS.get(turns, (0.0, 0.0))
    for name, end, goal in (("engine and trie", "", with_trie), ("engine", "_engine_alone", alone)):
        if name in found:
            value = found[name]["ratio"].median
            report.figure(f"steps_per_s_ratio_{turns}_turns{end}", value, f"at least {goal:g}")


if __name__ == "__main__":
    main()
