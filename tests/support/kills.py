"""Runs that are killed by SIGKILL at random moments and go on, again and again.

A fork server that has imported everything starts each attempt, so that most of its time is a run
and not an import.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from dataclasses import dataclass, field
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
    settings: dict[str, object], folder: Path, *, kills: int, seed: int, variants: list[list[str]]
) -> KillReport:
    """Kill runs of a config until `kills` kills have happened and the run they hit has ended.

    A moment is a step that the run must have reached, and a random while after it, up to the time
    of two steps: this way kills spread over the whole of a run, on a busy machine as on an idle
    one, and many hit a checkpoint that is being written.

    Args:
        settings: the config as YAML would hold it.
        variants: overrides; each run takes the next.
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
