"""Runs that are killed by SIGKILL at random moments and go on, again and again.

    PYTHONPATH=tests python -m support.kills 200 docs/reliability/kills.json

A fork server that has imported everything starts each attempt, so that most of its time is a run
and not an import.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import platform
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import NamedTuple

from agentrl.core.loading import load
from agentrl.evaluate.checkpoints import whole_checkpoints
from agentrl.train.checkpoint import step_of
from support.same import differences

ATTEMPT_S = 300.0
"""Seconds after which an attempt that was not killed counts as hanging."""


@dataclass(kw_only=True)
class KillReport:
    """What came of it."""

    kills: int = 0
    runs: int = 0
    """Runs that were killed at least once and then came to their end."""
    torn: int = 0
    """Kills that hit a checkpoint while it was written."""
    before: int = 0
    """Kills before the first checkpoint: the run begins anew."""
    mismatches: list[str] = field(default_factory=list)
    """Differences from the run that nobody killed."""
    run_s: float = 0.0
    """Seconds of a run that nobody killed, start-up included."""
    seconds: float = 0.0


def attempt(settings: dict[str, object], overrides: list[str]) -> None:
    """Train in this process, saying nothing."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch

    from agentrl.core.config import Config
    from agentrl.train.loop import train

    torch.set_num_threads(1)
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - until the process ends
    train(load(Config, settings, overrides), "auto")


def kill_often(
    settings: dict[str, object],
    folder: Path,
    *,
    kills: int,
    seed: int,
    variants: list[list[str]],
    note: Callable[[KillReport], None] = lambda report: None,
) -> KillReport:
    """Kill runs of a config until `kills` kills have happened and the run they hit has ended.

    A moment is a step that the run must have reached, and a random while after it, up to the time
    of two steps: this way kills spread over the whole of a run, on a busy machine as on an idle
    one, and many hit a checkpoint that is being written.

    Args:
        settings: the config as YAML would hold it.
        variants: overrides; each run takes the next.
        note: gets the report so far at the end of each run.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["agentrl.train.loop", "agentrl.train.trl", "support.kills"])
    rng, report, began = Random(seed), KillReport(), time.monotonic()
    straight: dict[int, Whole] = {}
    while report.kills < kills:
        number = report.runs % len(variants)
        if number not in straight:
            straight[number] = _whole(context, settings, variants[number], folder, number)
            report.run_s = max(report.run_s, straight[number].seconds)
        whole = straight[number]
        run = folder / f"killed-{report.runs}" / _name(settings)
        overrides = [*variants[number], f"run.folder={run.parent}"]
        while report.kills < kills and not _play(context, settings, overrides, run, whole, rng):
            report.kills += 1
            checkpoints = run / "checkpoints"
            report.torn += bool(list(checkpoints.glob("partial-*")))
            report.before += newest_step(run) < 0
        if report.kills == kills:
            _play(context, settings, overrides, run, whole, None)
        report.runs += 1
        found = differences(whole.folder, run)
        report.mismatches += [f"run {report.runs}: {what}" for what in found]
        report.seconds = time.monotonic() - began
        note(report)
    return report


class Whole(NamedTuple):
    """A run that nobody killed."""

    folder: Path
    seconds: float
    """All of it, start-up included."""
    step_s: float
    """A step with its checkpoint."""


def _whole(
    context: multiprocessing.context.ForkServerContext,
    settings: dict[str, object],
    overrides: list[str],
    folder: Path,
    number: int,
) -> Whole:
    run = folder / f"straight-{number}" / _name(settings)
    began = time.monotonic()
    _play(context, settings, [*overrides, f"run.folder={run.parent}"], run, None, None)
    seconds = time.monotonic() - began
    times = [p.stat().st_mtime for p in whole_checkpoints(run / "checkpoints")]
    step_s = (times[-1] - times[0]) / (len(times) - 1)
    return Whole(run, seconds, step_s)


def _name(settings: dict[str, object]) -> str:
    run = settings["run"]
    assert isinstance(run, dict)
    return str(run["name"])


def newest_step(run: Path) -> int:
    """The step of the newest whole checkpoint; -1 if there is none."""
    whole = whole_checkpoints(run / "checkpoints")
    return step_of(whole[-1]) if whole else -1


def _play(
    context: multiprocessing.context.ForkServerContext,
    settings: dict[str, object],
    overrides: list[str],
    run: Path,
    whole: Whole | None,
    rng: Random | None,
) -> bool:
    """Whether an attempt came to its end; with `rng` it is killed at a random moment."""
    process = context.Process(target=attempt, args=(settings, overrides))
    process.start()
    assert process.pid is not None
    if whole is not None and rng is not None:
        now = newest_step(run)
        target = now + rng.randrange(3)
        after_s = rng.uniform(0, 2 * whole.step_s if target >= 0 else whole.seconds / 2)
        until = time.monotonic() + ATTEMPT_S
        while newest_step(run) < target and process.is_alive():
            assert time.monotonic() < until, f"step {target} did not come in {ATTEMPT_S:g} s"
            time.sleep(0.002)
        process.join(after_s)
        if process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
            process.join()
            return False
    process.join(ATTEMPT_S)
    assert process.exitcode is not None, f"an attempt hung for {ATTEMPT_S:g} s"
    assert process.exitcode == 0, f"an attempt ended with {process.exitcode}"
    return True


SETTINGS: dict[str, object] = {
    "run": {"name": "killed", "steps": 6, "seed": 3, "device": "cpu"},
    "model": {
        "model_type": "qwen3",
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "tie_word_embeddings": True,
        "max_position_embeddings": 256,
    },
    "tokenizer": {"vocabulary": 280, "texts": 10},
    "env": {"name": "countdown", "numbers": 3},
    "sampling": {"max_tokens": 6},
    "rollout": {"tasks_per_step": 3, "group_size": 3, "max_turns": 3},
    "kl": "k3",
    "sft": {"demos": 2, "dev_demos": 2, "max_steps": 4, "eval_every": 2},
    "optim": {"lr": 1e-3, "updates_per_batch": 2},
    "eval": {"every": 2, "tasks": 3, "final_tasks": 3},
    "checkpoint": {"every": 1},
    "track": ["jsonl"],
}
"""A run of six steps with a warm start, a reference model and a checkpoint at every step."""
VARIANTS = [[], ["lora.rank=4"]]


def main(kills: int, path: Path, seed: int = 1) -> None:
    """Kill that often and keep the report as JSON, written anew at the end of every run."""

    def note(report: KillReport) -> None:
        machine = (
            f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({**asdict(report), "machine": machine}, indent=1) + "\n")

    with tempfile.TemporaryDirectory() as folder:
        kill_often(SETTINGS, Path(folder), kills=kills, seed=seed, variants=VARIANTS, note=note)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
