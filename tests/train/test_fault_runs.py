"""Whole runs in which something breaks: training goes on with the rest, and the count is right."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentrl.evaluate.checkpoints import whole_checkpoints
from agentrl.track.jsonl import read_metrics
from agentrl.train.checkpoint import verify
from agentrl.train.loop import train
from support import WAKE
from support.envs import Fault
from support.fault_log import Boundary, FaultLog
from support.faulty import EngineFault
from support.interrupts import heed_ctrl_c
from support.models import CHATML, save_model
from support.whole_runs import MODEL, parts_that_break, tiny, training_envs

__all__ = ["parts_that_break", "training_envs"]

pytestmark = pytest.mark.usefixtures("parts_that_break")

ROOT = Path(__file__).parents[2]
DEADLINE_S = 3.0
STEPS, GROUP = 2, 4
AHEAD = ("rollout.mode=async", "rollout.max_staleness=1", "mismatch=tis")
MODES = [(), pytest.param(AHEAD, marks=pytest.mark.slow)]
"""In step with the trainer, and ahead of it."""


@pytest.fixture(autouse=True)
def sleepers_wake() -> Iterator[None]:
    """Threads that hang go on when their test is over."""
    yield
    WAKE.set()
    WAKE.clear()


def run(folder: Path, *overrides: str) -> Path:
    """A run whose first episodes are those of step 1: a saved model needs no corpus of the env."""
    model = save_model(folder / "llama", "llama", CHATML)
    quiet = ("eval.every=0", "eval.final_tasks=0", "eval.baselines=false", f"run.steps={STEPS}")
    size = ("rollout.tasks_per_step=1", f"rollout.group_size={GROUP}")
    limits = [f"rollout.{what}_timeout_s={DEADLINE_S}" for what in ("env", "engine", "reward")]
    return train(tiny(folder, *quiet, *size, *limits, *overrides, model=str(model)))


def beside(place: str, mode: tuple[str, ...]) -> str:
    return f"{place}, async" if mode else place


def keep(log: FaultLog, boundary: Boundary, what: str, place: str, folder: Path) -> None:
    """One episode failed, all others were scored."""
    log.run(
        boundary,
        what,
        place,
        deadline_s=DEADLINE_S,
        folder=folder,
        steps=STEPS,
        per_step=GROUP,
        failed=1,
    )


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("runner", "fault", "what"),
    [
        ("thread", "raise", "step raises"),
        pytest.param("thread", "hang", "step hangs", marks=pytest.mark.slow),
        pytest.param("thread", "garbage", "step returns garbage", marks=pytest.mark.slow),
        pytest.param("process", "hang", "step hangs", marks=pytest.mark.slow),
        pytest.param("process", "exit", "step exits the process", marks=pytest.mark.slow),
        pytest.param("process", "killed", "step is killed by SIGKILL", marks=pytest.mark.slow),
        pytest.param("process", "memory", "step is out of memory", marks=pytest.mark.slow),
    ],
)
def test_a_run_outlives_an_env_that_breaks(
    runner: str,
    fault: Fault,
    what: str,
    mode: tuple[str, ...],
    tmp_path: Path,
    fault_log: FaultLog,
) -> None:
    env = ("env.name=once-bad", f"env.fault={fault}", f"env.claim={tmp_path / 'claim'}")
    folder = run(tmp_path, *env, f"rollout.runner={runner}", *mode)
    keep(fault_log, "env", what, beside(runner, mode), folder)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("fault", "what"),
    [
        ("nan", "answers NaN logprobs"),
        pytest.param("hang", "hangs", marks=pytest.mark.slow),
        pytest.param("short", "answers fewer logprobs than tokens", marks=pytest.mark.slow),
        pytest.param("raise", "raises", marks=pytest.mark.slow),
    ],
)
def test_a_run_outlives_an_engine_that_breaks(
    fault: EngineFault, what: str, mode: tuple[str, ...], tmp_path: Path, fault_log: FaultLog
) -> None:
    engine = ("engine.name=once-bad", f"engine.fault={fault}", f"engine.claim={tmp_path / 'claim'}")
    place = "one answer, async" if mode else "lockstep"
    keep(fault_log, "engine", what, place, run(tmp_path, *engine, *mode))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("fault", "what"),
    [
        ("raise", "raises"),
        pytest.param("hang", "hangs", marks=pytest.mark.slow),
        pytest.param("garbage", "answers a text", marks=pytest.mark.slow),
    ],
)
def test_a_run_outlives_a_reward_that_breaks(
    fault: str, what: str, mode: tuple[str, ...], tmp_path: Path, fault_log: FaultLog
) -> None:
    reward = ("reward.name=once-bad", f"reward.fault={fault}", f"reward.claim={tmp_path / 'claim'}")
    folder = run(tmp_path, *reward, *mode)
    keep(fault_log, "reward", what, beside("one episode", mode), folder)


@pytest.mark.slow
def test_a_run_counts_an_episode_whose_reward_is_nan(tmp_path: Path, fault_log: FaultLog) -> None:
    reward = ("reward.name=once-bad", "reward.fault=nan", f"reward.claim={tmp_path / 'claim'}")
    fault_log.run(
        "reward",
        "answers NaN",
        "one episode",
        deadline_s=DEADLINE_S,
        folder=run(tmp_path, *reward),
        steps=STEPS,
        per_step=GROUP,
        unscored=1,
    )


# --- Ctrl-C and SIGTERM ---------------------------------------------------------------------------

STOP_S = 5.0


def marked(mark: str) -> list[int]:
    """Processes whose environment holds `mark`."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and mark.encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
        except OSError:  # it ended, or is not ours
            continue
    return found


def recipe(folder: Path) -> Path:
    """A run that would take hours, with every env in a process of its own."""
    path = folder / "recipe.yaml"
    path.write_text(
        "run: {name: cut, steps: 10000}\n"
        f"model: {json.dumps(MODEL)}\n"
        "tokenizer: {vocabulary: 300, texts: 10}\n"
        "env: {name: countdown, numbers: 2, train_tasks: 8, dev_tasks: 8, test_tasks: 8}\n"
        "sampling: {max_tokens: 4}\n"
        "rollout: {tasks_per_step: 1, group_size: 2, max_turns: 2, runner: process}\n"
        "eval: {every: 1, tasks: 1, final_tasks: 0, baselines: false}\n"
    )
    return path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "what", "status", "word"),
    [
        (signal.SIGINT, "Ctrl-C (SIGINT)", 130, "interrupted"),
        (signal.SIGTERM, "SIGTERM", 143, "terminated"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_signal_ends_a_run_in_time_and_leaves_no_process(
    number: int, what: str, status: int, word: str, tmp_path: Path, fault_log: FaultLog
) -> None:
    mark = f"AGENTRL_MARK={uuid.uuid4()}"
    name, value = mark.split("=")
    started = subprocess.Popen(
        [sys.executable, "-m", "agentrl", "train", str(recipe(tmp_path)), f"run.folder={tmp_path}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, name: value},
        preexec_fn=heed_ctrl_c,
    )
    metrics = tmp_path / "cut" / "metrics.jsonl"
    until = time.monotonic() + 50
    while started.poll() is None and time.monotonic() < until:
        if metrics.exists() and metrics.read_text().count("\n") >= 3:
            break
        time.sleep(0.05)
    assert len(marked(mark)) >= 2, "the run and its envs"
    began = time.monotonic()
    started.send_signal(number)
    assert started.stderr is not None
    complaint = ""
    while word not in complaint and (line := started.stderr.readline()):
        complaint += line
    seconds = time.monotonic() - began
    complaint += started.communicate(timeout=20)[1]
    assert started.returncode == status, complaint
    said = f"{word}: the run so far is in {tmp_path}/cut"
    assert complaint.strip().splitlines()[-1].startswith(said), complaint
    assert "Traceback" not in complaint
    assert marked(mark) == []
    steps = [line["step"] for line in read_metrics(tmp_path / "cut")]
    assert steps == list(range(1, len(steps) + 1))
    for checkpoint in whole_checkpoints(tmp_path / "cut" / "checkpoints"):
        verify(checkpoint)
    fault_log.row(
        "interrupt",
        what,
        "whole run, env processes",
        deadline_s=STOP_S,
        noticed_s=seconds,
        counted="every finished step is logged",
        then=f"exit status {status}, no process left, the last checkpoint whole",
    )
