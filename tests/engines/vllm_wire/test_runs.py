"""Whole runs on vLLM servers: training goes on with what is left, and the count is right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agentrl.core.errors import TrainingError
from agentrl.engines.policy import load_policy
from agentrl.track.jsonl import read_metrics
from agentrl.train.loop import train
from support.fake_vllm import FakeVllm, Fault
from support.fault_log import FaultLog
from support.models import CHATML, save_model
from support.whole_runs import column, tiny, training_envs
from support.wire import heard, noticed_after, servers

__all__ = ["training_envs"]

pytestmark = pytest.mark.usefixtures("training_envs")

DEADLINE_S = 3.0
STEPS, GROUP = 2, 4
AHEAD = ("rollout.mode=async", "rollout.max_staleness=1", "mismatch=tis")
SLOW = pytest.mark.slow


def run(folder: Path, running: list[FakeVllm], *overrides: str) -> Path:
    """A run whose first requests are those of step 1."""
    quiet = ("eval.every=0", "eval.final_tasks=0", "eval.baselines=false", f"run.steps={STEPS}")
    size = ("rollout.tasks_per_step=1", f"rollout.group_size={GROUP}")
    urls = ",".join(server.url for server in running)
    engine = ("engine.name=vllm", f"engine.urls=[{urls}]", f"engine.silence_s={DEADLINE_S}")
    limit = f"rollout.engine_timeout_s={3 * DEADLINE_S}"
    config = tiny(folder, *quiet, *size, *engine, limit, *overrides, model=str(folder / "llama"))
    return train(config)


def policy_of(folder: Path) -> Any:
    path = save_model(folder / "llama", "llama", CHATML)
    return load_policy(str(path), seed=0, device="cpu")


@pytest.mark.parametrize("mode", [(), pytest.param(AHEAD, marks=SLOW)], ids=["sync", "async"])
@pytest.mark.parametrize(
    ("fault", "what", "failed"),
    [
        ("killed", "a vLLM server is killed", 0),
        ("nan", "a vLLM server answers NaN logprobs", 1),
        pytest.param("hung", "a vLLM server hangs", 0, marks=SLOW),
        pytest.param("stuck", "a vLLM server answers, but computes no token", 0, marks=SLOW),
        pytest.param("memory", "a vLLM server is out of memory", 0, marks=SLOW),
        pytest.param("500", "a vLLM server answers 500", 0, marks=SLOW),
        pytest.param("dropped", "a vLLM server drops the connection", 0, marks=SLOW),
        pytest.param("short", "a vLLM server answers too few logprobs", 1, marks=SLOW),
        pytest.param("strange", "a vLLM server says other weights", 0, marks=SLOW),
        pytest.param("push fails", "a push to a vLLM server fails half way", 0, marks=SLOW),
    ],
)
def test_a_run_outlives_a_server_that_fails(
    fault: Fault,
    what: str,
    failed: int,
    mode: tuple[str, ...],
    tmp_path: Path,
    fault_log: FaultLog,
) -> None:
    with servers(policy_of(tmp_path), 2) as running, heard() as lines:
        # Siblings go to the first server; the first push is that of the start.
        running[0].hit(fault, after=1)
        folder = run(tmp_path, running, *mode)
    assert max(map(float, column(folder, "sync/probe_gap"))) < 1e-4  # type: ignore[arg-type]
    fault_log.run(
        "engine",
        what,
        "one of two servers" + ", async" * bool(mode),
        deadline_s=DEADLINE_S,
        folder=folder,
        steps=STEPS,
        per_step=GROUP,
        failed=failed,
        noticed_s=None if failed else noticed_after(running[0], lines),
    )


def test_a_run_without_any_server_left_ends_in_an_error_that_names_them(tmp_path: Path) -> None:
    with servers(policy_of(tmp_path)) as running:
        running[0].hit("killed", after=1)
        with pytest.raises(TrainingError, match=r"every episode failed.*no vLLM server is left"):
            run(tmp_path, running)
        assert read_metrics(tmp_path / "tiny") == []
