"""Rollouts that run ahead of the trainer, against collecting and training in turns.

    python scripts/bench/async.py --json docs/results/bench/async.json

Whole runs of `agentrl train` with an env that answers late: 64 episodes in flight in every arm,
groups of 8, 6 turns, each answer after a lognormal time (sigma 1, mean 0.3 s). A step trains on 64
episodes. The peer is our own `rollout.mode=sync`, which waits for the slowest episode of a step
and trains while no env runs. `partial` goes on training with the first groups that are complete
and lets the late ones go on in the next step (over-sampling with early stop); `async` also lets
episodes go on while the trainer trains. Both may be `--staleness` versions behind. `wide` is
`async` with all episodes in flight that this staleness allows, three times as many.

What is compared is the wall time for each trained token over the first `--steps` steps of a run,
the filling of the pipeline included; a run goes on for longer than that, so its end, when no more
groups are begun, is not seen. The ideal is the longer of
two times: a step's env time shared evenly by the episodes in flight, with nobody waiting for
anybody, and a step's CPU time on the cores there are.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import ClassVar

import measure
import torch
from measure import Report, Spread, interleaved, ratios, show
from subjects import SIZES

from agentrl.core.config import Config, load_config
from agentrl.core.protocols import Env
from agentrl.core.registry import register
from agentrl.core.types import Action, Observation, Split, Step, Task
from agentrl.track.trajectories import EpisodeRecord
from agentrl.train.loop import train

EPISODES, GROUP, TURNS, MEAN_S, SIGMA = 64, 8, 6, 0.3, 1.0
LATENCY = Random(0)
"""Of all envs; `main` seeds it anew for every run."""


@register("env", "bench_late")
@dataclass(kw_only=True)
class Late(Env):
    """Answers each action after a lognormal time, and pays for its letters."""

    runs_in: ClassVar = "inline"
    _turn: int = field(default=0, init=False, repr=False)

    def tasks(self, split: Split) -> Sequence[Task]:
        """As many as any run needs."""
        return [Task(id=f"{split}-{i}", seed=i) for i in range(4096)]

    def reset(self, task: Task) -> Observation:
        """At once."""
        self._turn = 0
        return Observation(f"say something about {task.seed}")

    async def step(self, action: Action) -> Step:
        """After a while."""
        await asyncio.sleep(LATENCY.lognormvariate(math.log(MEAN_S) - SIGMA**2 / 2, SIGMA))
        self._turn += 1
        is_over = self._turn == TURNS
        return Step(
            observation=f"turn {self._turn}",
            reward=len(str(action)) % 7 / 7,
            terminated=is_over,
            info={"success": True} if is_over else {},
        )


class EnoughError(Exception):
    """The steps that count are over."""


@register("track", "bench_async")
@dataclass(kw_only=True)
class Noted:
    """Keeps the metrics of a run, and ends it."""

    steps: int
    lines: ClassVar[list[dict[str, float]]] = []

    def open(self, folder: Path, name: str, total_steps: int, *, resumed: int = 0) -> None:
        """A new run."""
        self.lines.clear()

    def episodes(self, step: int, episodes: Sequence[EpisodeRecord]) -> None:
        """Nothing is shown."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Keep them."""
        self.lines.append(dict(metrics))
        if step == self.steps:
            raise EnoughError

    def evaluation(self, step: int, name: str, numbers: Mapping[str, float]) -> None:
        """There are none."""

    def say(self, text: str) -> None:
        """Nobody listens."""

    def close(self) -> None:
        """Nothing is open."""


def config_of(mode: str, arguments: argparse.Namespace, folder: str) -> Config:
    """A run in this mode."""
    of = SIZES[arguments.size]
    ahead = [f"rollout.max_staleness={arguments.staleness}", "mismatch=tis"]
    return load_config(
        None,
        [
            f"run={{folder: {folder}, steps: {2 * arguments.steps}, device: cpu}}",
            "run.deterministic=false",
            f"model={{model_type: qwen3, hidden_size: {of.hidden}, intermediate_size: {of.inner}, "
            f"num_hidden_layers: {of.layers}, num_attention_heads: {of.heads}, "
            f"num_key_value_heads: {of.heads // 2}, head_dim: {of.hidden // of.heads}, "
            "tie_word_embeddings: true, max_position_embeddings: 1024}",
            "env=bench_late",
            f"sampling.max_tokens={arguments.tokens}",
            f"rollout={{tasks_per_step: {EPISODES // GROUP}, group_size: {GROUP}, "
            f"max_turns: {TURNS}, deadline_s: 600}}",
            f"rollout.in_flight={0 if mode == 'wide' else EPISODES}",
            "optim={lr: 1.0e-6, tokens_per_microbatch: 8192}",
            "eval={every: 0, final_tasks: 0, baselines: false}",
            f"track=[{{name: bench_async, steps: {arguments.steps}}}]",
            "engine=transformers",
            "scorer=trie",
            f"rollout.mode={'async' if mode == 'wide' else mode}",
            *(ahead if mode != "sync" else ()),
        ],
    )


@dataclass
class Arm:
    """One mode; notes what its runs were like beside their time."""

    mode: str
    arguments: argparse.Namespace
    cpu_s: list[float] = field(default_factory=list)
    tokens: list[float] = field(default_factory=list)
    env_s: list[float] = field(default_factory=list)
    staleness: list[float] = field(default_factory=list)
    gap: list[float] = field(default_factory=list)
    runs: int = 0

    def __call__(self) -> float:
        """Wall seconds for a thousand trained tokens."""
        LATENCY.seed(self.arguments.seed * 1000 + self.runs)
        self.runs += 1
        before = time.process_time()
        with tempfile.TemporaryDirectory() as folder, suppress(EnoughError):
            train(config_of(self.mode, self.arguments, folder))
        lines = Noted.lines
        tokens = sum(line["rollout/tokens"] * EPISODES for line in lines)
        wall = sum(line["time/step_s"] for line in lines)
        self.cpu_s.append((time.process_time() - before) / len(lines))
        self.tokens.append(tokens)
        self.env_s.append(sum(line["time/env_s"] for line in lines) / len(lines))
        self.staleness.append(sum(x.get("rollout/staleness", 0.0) for x in lines) / len(lines))
        self.gap.append(sum(x["mismatch/gap"] for x in lines) / len(lines))
        return 1000 * wall / tokens


def main() -> None:
    """Four arms in turns."""
    options = measure.parser(__doc__ or "", threads=1)
    options.add_argument("--steps", type=int, default=6, help="of a run, default %(default)s")
    options.add_argument("--staleness", type=int, default=2, help="default %(default)s")
    options.add_argument("--size", default="0.65M", help="of the model, default %(default)s")
    options.add_argument("--tokens", type=int, default=8, help="of a reply, default %(default)s")
    arguments = options.parse_args()
    report = Report(bench="async", arguments=arguments)
    torch.set_num_threads(arguments.threads)
    arms = {mode: Arm(mode, arguments) for mode in ("sync", "partial", "async", "wide")}
    arms["sync"]()  # warm up
    arms["sync"] = Arm("sync", arguments)
    found = interleaved(arms, arguments.repeats)
    cores = len(os.sched_getaffinity(0))
    rows = []
    for mode, arm in arms.items():
        per_step = [
            1e-3 * s * t / arguments.steps for s, t in zip(found[mode], arm.tokens, strict=True)
        ]
        ideal = [
            max(e / EPISODES, c / cores) for e, c in zip(arm.env_s, arms["sync"].cpu_s, strict=True)
        ]
        speedup = ratios(found["sync"], found[mode])
        report.case(
            mode=mode,
            speedup=speedup,
            seconds=Spread.of(per_step),
            ideal_s=Spread.of(ideal),
            cpu_s=Spread.of(arm.cpu_s),
            env_s=Spread.of(arm.env_s),
            tokens=Spread.of(arm.tokens),
            staleness=Spread.of(arm.staleness),
            mismatch_gap=Spread.of(arm.gap),
        )
        rows.append(
            [
                mode,
                speedup.text(),
                Spread.of(per_step).text(),
                Spread.of(ideal).text(),
                f"{Spread.of(arm.cpu_s).median:.2f}",
                f"{Spread.of(arm.tokens).median:.0f}",
                f"{Spread.of(arm.staleness).median:.2f}",
                f"{Spread.of(arm.gap).median:.1e}",
            ]
        )
    show(
        "Wall time for the same number of trained tokens, sync over ...",
        ["mode", "speed-up", "s/step", "ideal s/step", "CPU-s/step", "tokens", "stale", "gap"],
        rows,
    )
    speedups = {case["mode"]: case["speedup"]["median"] for case in report.cases}
    report.figure("speedup", speedups["async"], "at least 2.5")
    for mode in ("partial", "wide"):
        report.figure(f"speedup_{mode}", speedups[mode])
    report.finish()


if __name__ == "__main__":
    main()
