"""What our own code costs: the share of a training step outside model and env, and memory.

    python scripts/bench/overhead.py --json docs/results/bench/overhead.json

Whole steps of `agentrl train` on BabyAI (GoToObj, 16 episodes in groups of 8 with replies of at
most 8 tokens, 8 turns); the model has random weights, and rewards are made to differ. Noted are the
times at which the model's forward pass, the backward pass, the optimiser or the env runs, in
whatever thread. The overhead is the share of a step's wall time in which none of them does:
scheduling, the drawing of tokens and logprobs, rendering, advantages, batches, the record of the
episodes. Steps are whole, from one to the next. There is no peer; the first step is not counted.

Memory: a thousand episodes (125 tasks in groups of 8, 2 turns, an env of random words) at once, in
a process of its own. Counted is the peak beyond what the process had after 8 episodes, less what
the engine's pool of keys and values took at its largest, which `engine.kv_mib` bounds.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import Any

import measure
import torch
from measure import Report, Spread, forget_peak, peak_mib, resident_mib, show
from subjects import SIZES

from agentrl.core.config import Config, load_config
from agentrl.core.registry import register
from agentrl.core.types import Action, Observation, Step, Task
from agentrl.envs.babyai import BabyAI
from agentrl.evaluate.runner import build_stage
from agentrl.track.trajectories import EpisodeRecord
from agentrl.train.loop import train
from agentrl.train.parallel.single import Single

GOAL = "33M"
"""The size for which the goal holds."""
WAIT_S = 300.0
WAITING = ("selectors.py", "threading.py", "queue.py", "connection.py", "thread.py")
"""Where threads that wait stand."""


@dataclass(frozen=True)
class Busy:
    """A time at which model or env code ran."""

    what: str
    began: float
    ended: float


BUSY: list[Busy] = []
RUNNING: list[str] = []
"""What model or env code runs at the moment."""
STEPS: list[float] = []
"""When each step was over."""


@contextmanager
def busy(what: str) -> Iterator[None]:
    """Note how long the block takes."""
    began = time.perf_counter()
    RUNNING.append(what)
    try:
        yield
    finally:
        RUNNING.remove(what)
        BUSY.append(Busy(what, began, time.perf_counter()))


@register("env", "bench_babyai")
@dataclass(kw_only=True)
class NotedBabyAI(BabyAI):
    """BabyAI whose calls are noted, and whose rewards differ, so that every group is trained."""

    def reset(self, task: Task) -> Observation:
        """As BabyAI."""
        with busy("env"):
            return super().reset(task)

    def step(self, action: Action) -> Step:
        """As BabyAI, but for the reward."""
        with busy("env"):
            return replace(super().step(action), reward=len(str(action)) % 7 / 7)


@register("parallel", "bench_single")
@dataclass(kw_only=True)
class NotedSingle(Single):
    """One process whose passes are noted."""

    def wrap(
        self,
        module: torch.nn.Module,
        build_optimiser: Callable[[torch.nn.Module], torch.optim.Optimizer],
    ) -> torch.nn.Module:
        """As `single`; the engine samples from the same module."""
        passes = ExitStack()
        module.register_forward_pre_hook(lambda *_: passes.enter_context(busy("forward")))
        module.register_forward_hook(lambda *_: passes.pop_all().close())
        return super().wrap(module, build_optimiser)

    def backward(self, loss_sum: torch.Tensor) -> None:
        """As `single`."""
        with busy("backward"):
            super().backward(loss_sum)

    def step(self, max_norm: float) -> float:
        """As `single`."""
        with busy("optimiser"):
            return super().step(max_norm)


@register("track", "bench_steps")
@dataclass(kw_only=True)
class StepSink:
    """Notes when a step is over."""

    def open(self, folder: Path, name: str, total_steps: int, *, resumed: int = 0) -> None:
        """Nothing to open."""

    def episodes(self, step: int, episodes: Sequence[EpisodeRecord]) -> None:
        """Nothing is shown."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """The step is over."""
        STEPS.append(time.perf_counter())

    def evaluation(self, step: int, name: str, numbers: Mapping[str, float]) -> None:
        """There are none."""

    def say(self, text: str) -> None:
        """Nobody listens."""

    def close(self) -> None:
        """Nothing is open."""


def shape(size: str) -> str:
    """A model of this size as a setting."""
    of = SIZES[size]
    return (
        f"model={{model_type: qwen3, hidden_size: {of.hidden}, intermediate_size: {of.inner}, "
        f"num_hidden_layers: {of.layers}, num_attention_heads: {of.heads}, "
        f"num_key_value_heads: {of.heads // 2}, head_dim: {of.hidden // of.heads}, "
        "tie_word_embeddings: true, max_position_embeddings: 4096}"
    )


def config_of(size: str, arguments: argparse.Namespace, folder: str) -> Config:
    """A run of a warm-up step and as many as are counted."""
    return load_config(
        None,
        [
            f"run={{folder: {folder}, steps: {arguments.repeats + 1}, device: cpu}}",
            f"run.deterministic={str(not arguments.no_lockstep).lower()}",
            shape(size),
            "env={name: bench_babyai, level: GoToObj, cap: 16, train_tasks: 64}",
            "sampling.max_tokens=8",
            "rollout={tasks_per_step: 2, group_size: 8, max_turns: 8, deadline_s: 900, "
            "engine_timeout_s: 900}",
            "optim={lr: 1.0e-6, tokens_per_microbatch: 4096}",
            "eval={every: 0, final_tasks: 0, baselines: false}",
            "parallel=bench_single",
            "track=[bench_steps]",
            f"engine={arguments.engine}",
            f"scorer={arguments.scorer}",
        ],
    )


def covered(noted: Sequence[Busy], first: float, last: float) -> float:
    """Seconds between `first` and `last` in which anything noted ran."""
    total, until = 0.0, first
    for one in sorted(noted, key=lambda one: one.began):
        begins, ends = max(one.began, until), min(one.ended, last)
        if ends > begins:
            total, until = total + ends - begins, ends
    return total


def shares(size: str, arguments: argparse.Namespace, report: Report) -> Spread:
    """The overhead of each counted step of a run."""
    BUSY.clear()
    STEPS.clear()
    samples = Samples(arguments.repeats)
    with (
        tempfile.TemporaryDirectory() as folder,
        samples.taken() if arguments.profile else nullcontext(),
    ):
        train(config_of(size, arguments, folder))
    if arguments.profile:
        show(f"{size}: where the rest goes", ["place", "share"], samples.rows())
    spans = list(pairwise(STEPS))
    found = Spread.of([1 - covered(BUSY, a, b) / (b - a) for a, b in spans])
    kinds = sorted({one.what for one in BUSY})
    report.case(
        size=size,
        overhead=found,
        seconds=Spread.of([b - a for a, b in spans]),
        shares={
            kind: covered([o for o in BUSY if o.what == kind], STEPS[0], STEPS[-1])
            / (STEPS[-1] - STEPS[0])
            for kind in kinds
        },
    )
    return found


# --- where it goes --------------------------------------------------------------------------------


@dataclass
class Samples:
    """Where threads stand in the counted steps while neither model nor env runs, every 2 ms."""

    steps: int
    """Counted steps."""
    places: Counter[str] = field(default_factory=Counter)
    _is_over: threading.Event = field(default_factory=threading.Event)

    def look(self) -> None:
        """Until it is over."""
        own = threading.get_ident()
        while not self._is_over.wait(0.002):
            if RUNNING or not 0 < len(STEPS) <= self.steps:
                continue
            for thread, frame in sys._current_frames().items():
                place = None if thread == own else working(frame)
                if place is not None:
                    self.places[place] += 1

    @contextmanager
    def taken(self) -> Iterator[None]:
        """While the block runs."""
        thread = threading.Thread(target=self.look)
        thread.start()
        try:
            yield
        finally:
            self._is_over.set()
            thread.join()

    def rows(self, count: int = 25) -> list[list[str]]:
        """The commonest places and their shares."""
        total = sum(self.places.values())
        return [[place, f"{n / total:.1%}"] for place, n in self.places.most_common(count)]


def working(frame: FrameType | None) -> str | None:
    """The innermost function of ours on a stack, with its line; None for a thread that waits."""
    waits = frame is not None and frame.f_code.co_filename.rpartition("/")[2] in WAITING
    while frame is not None and not waits:
        path = frame.f_code.co_filename
        if "/agentrl/" in path and "site-packages" not in path:
            name = path.partition("/agentrl/")[2]
            return f"{name}:{frame.f_lineno} {frame.f_code.co_qualname}"
        frame = frame.f_back
    return None


# --- memory ---------------------------------------------------------------------------------------


def _thousand(engine: str, folder: str, line: Any) -> None:
    """Play, and say what it took."""
    torch.set_num_threads(1)
    config = load_config(
        None,
        [
            f"run={{folder: {folder}, device: cpu, deterministic: false}}",
            shape("0.65M"),
            "env={name: bench_words, turns: 2, train_tasks: 125}",
            "sampling.max_tokens=8",
            "rollout={tasks_per_step: 125, group_size: 8, max_turns: 2, deadline_s: 900, "
            "engine_timeout_s: 900}",
            f"engine={engine}",
        ],
    )

    async def play() -> dict[str, float]:
        stage = await build_stage(config)
        await config.engine.start(stage.policy)
        agent, tasks = stage.engine_agent(), config.env.tasks("train")
        worker = stage.worker
        await worker.collect(tasks[:1], agent=agent, group_size=8, label="few")
        idle, pools = forget_peak(), [0.0]
        watch = asyncio.create_task(watch_pool(config.engine, pools))
        groups = await worker.collect(tasks, agent=agent, group_size=8, label="many")
        watch.cancel()
        with suppress(asyncio.CancelledError):
            await watch
        found = {
            "episodes": float(sum(len(group.trajectories) for group in groups)),
            "failed": float(sum(t.stop.is_failure for g in groups for t in g.trajectories)),
            "peak_mib": peak_mib() - idle,
            "pool_mib": max(pools),
            "left_mib": resident_mib() - idle,
        }
        await worker.close()
        await config.engine.close()
        return found

    line.send(asyncio.run(play()))


async def watch_pool(engine: object, sizes: list[float]) -> None:
    """Note what the engine's keys and values take (MiB), at least: slots as far as rows were seen
    to fill them. An engine without a pool keeps none."""
    filled: dict[int, int] = {}
    while True:
        sampler = getattr(engine, "_sampler", None)
        batch = sampler.batch if sampler is not None else None
        for row in [*batch.active, *batch.idle] if batch is not None else []:
            filled[row.slot] = max(filled.get(row.slot, 0), row.filled)
        if batch is not None:
            sizes.append(sum(filled.values()) * batch.shape.token_bytes / 2**20)
        await asyncio.sleep(0.02)


def thousand(engine: str) -> dict[str, float]:
    """Memory of a thousand episodes, in a process of its own."""
    context = multiprocessing.get_context("spawn")
    mine, its = context.Pipe()
    with tempfile.TemporaryDirectory() as folder:
        process = context.Process(target=_thousand, args=(engine, folder, its))
        process.start()
        its.close()
        try:
            if not mine.poll(WAIT_S):
                raise TimeoutError(f"no figure within {WAIT_S:g} s")
            found: dict[str, float] = mine.recv()
        finally:
            process.kill()
            process.join()
    return found


def main() -> None:
    """Measure three sizes and the memory, and name the figures."""
    options = measure.parser(__doc__ or "", threads=2)
    options.add_argument("--sizes", nargs="+", default=[*("0.65M", "4M"), GOAL], help="of models")
    options.add_argument("--engine", default="transformers", help="default %(default)s")
    options.add_argument("--scorer", default="trie", help="default %(default)s")
    options.add_argument("--profile", action="store_true", help="say where the overhead arises")
    options.add_argument("--no-lockstep", action="store_true", help="run.deterministic=false")
    arguments = options.parse_args()
    report = Report(bench="overhead", arguments=arguments)
    torch.set_num_threads(arguments.threads)
    rows = []
    for size in arguments.sizes:
        found = shares(size, arguments, report)
        case = report.cases[-1]
        parts = ", ".join(f"{k} {v:.0%}" for k, v in case["shares"].items())
        rows.append([size, found.text(".1%"), f"{case['seconds']['median']:.2f}", parts])
        name = "overhead_share" if size == GOAL else f"overhead_share_{size}"
        report.figure(name, found.median, "below 0.05" if size == GOAL else "")
    show("Outside model and env", ["size", "share of a step", "seconds", "of it"], rows)
    memory = thousand(arguments.engine)
    report.case(**memory)
    value = memory["peak_mib"] - memory["pool_mib"]
    report.figure("episodes_1000_mib", value, "below 1024")
    report.finish()


if __name__ == "__main__":
    main()
