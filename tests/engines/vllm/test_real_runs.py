"""Whole runs of `agentrl train` that sample from real vLLM servers of their own."""

import os
import signal
import tempfile
import threading
import time
from pathlib import Path

import pytest

from agentrl.train.loop import train
from support.real_vllm import EXACT
from support.whole_runs import MODEL, column, tiny, training_envs

__all__ = ["training_envs"]

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(500),
    pytest.mark.usefixtures("training_envs"),
]

STEPS = 6


def api_servers(folder: Path) -> list[int]:
    """Processes that serve a model which lies somewhere in the folder."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            command = (entry / "cmdline").read_text().split("\0")
        except OSError:  # no process, or it is gone
            continue
        at = command.index("serve") if "serve" in command else 0
        if at and command[at - 1].startswith("vllm.") and command[at + 1].startswith(str(folder)):
            found.append(int(entry.name))
    return [pid for pid in found if Path(f"/proc/{pid}/cmdline").read_text().find("guard.py") < 0]


def kill_after_a_step(folder: Path, killed: list[int]) -> None:
    """End the server of a run by SIGKILL as soon as a step is over."""
    metrics, deadline = folder / "tiny" / "metrics.jsonl", time.monotonic() + 300
    while time.monotonic() < deadline:
        if metrics.exists() and metrics.read_text():
            for pid in api_servers(folder):
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)
            return
        time.sleep(0.01)


def test_a_run_goes_on_when_its_server_is_killed_and_every_push_of_it_is_exact(
    tmp_path: Path, vllm_python: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    killed: list[int] = []
    killer = threading.Thread(target=kill_after_a_step, args=(tmp_path, killed))
    killer.start()
    folder = train(
        tiny(
            tmp_path,
            *(f"engine={{name: vllm, python: {vllm_python}, eager: true}}", f"run.steps={STEPS}"),
            *("eval.every=0", "eval.final_tasks=0", "eval.baselines=false"),
            *("rollout.tasks_per_step=4", "sampling.max_tokens=32"),
            model={**MODEL, "head_dim": 32},
        )
    )
    killer.join()
    assert len(killed) == 1
    gaps = [float(str(gap)) for gap in column(folder, "sync/probe_gap")]
    assert len(gaps) == STEPS
    assert max(gaps) <= EXACT
    assert all(float(str(groups)) > 0 for groups in column(folder, "groups/trained"))
    assert not api_servers(tmp_path)
