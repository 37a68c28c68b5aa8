"""Inspect evaluates models on our environments; what its own log says is what was played."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from agentrl.core.config import load_alone
from agentrl.core.types import Task
from agentrl.rollout.answers import as_observation, as_step
from support import real_inspect
from support.models import save_model
from support.real_openenv import free_port

pytestmark = [pytest.mark.adapters, pytest.mark.slow, pytest.mark.timeout(300)]

EXPERT = {"env": "babyai", "split": "dev", "tasks": 6, "level": "GoToObj"}
TOOLS = {"env": "tools", "split": "dev", "tasks": 4, "steps": 2}
CASES = {
    "expert": {"args": EXPERT, "says": "expert"},
    "nonsense": {"args": {"env": "babyai", "tasks": 2, "max_turns": 3}, "says": "dance"},
    "tools": {"args": TOOLS, "says": "expert"},
    "no calls": {"args": {**TOOLS, "max_turns": 2, "native_calls": False}, "says": "let me see"},
    "failing": {"args": {"env": "every_other", "tasks": 8}, "says": "ant"},
}


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    found = real_inspect.evaluated(list(CASES.values()), tmp_path_factory.mktemp("logs"))
    return dict(zip(CASES, found, strict=True))


def native(args: dict[str, Any]) -> list[tuple[Task, list[str], float]]:
    """Each task with what its expert is shown, and what it earns."""
    settings = {key: args[key] for key in args.keys() & {"level", "steps"}}
    env: Any = load_alone(args["env"], [f"{k}={json.dumps(v)}" for k, v in settings.items()]).env
    played = []
    for task in env.tasks(args["split"])[: args["tasks"]]:
        shown, total, is_over = [as_observation(env.reset(task)).text], 0.0, False
        while not is_over:
            step = as_step(env.step(env.expert_action()))
            total += step.reward
            is_over = step.terminated or step.truncated
            shown.append(as_observation(step.observation).text)
        played.append((task, shown[:-1], total))
    return played


def of_role(sample: dict[str, Any], role: str) -> list[str]:
    return [text for said, text, _ in sample["messages"] if said == role]


def test_an_expert_is_shown_and_earns_what_it_does_natively(logs: dict[str, Any]) -> None:
    log, expected = logs["expert"], native(EXPERT)
    assert (log["status"], log["scored"]) == ("success", len(expected))
    assert log["args"]["level"] == "GoToObj"
    for sample, (task, shown, total) in zip(log["samples"], expected, strict=True):
        assert sample["id"] == task.id
        assert of_role(sample, "user") == shown
        assert sample["value"] == {
            "success": 1.0,
            "reward": pytest.approx(total),
            "turns": len(shown),
            "invalid": 0,
        }
    metrics = log["metrics"]
    assert metrics["success/accuracy"] == 1.0
    mean = math.fsum(total for *_, total in expected) / len(expected)
    assert metrics["reward/mean"] == pytest.approx(mean)


def test_what_is_no_action_is_told_and_counted_and_a_limit_is_no_success(
    logs: dict[str, Any],
) -> None:
    for sample in logs["nonsense"]["samples"]:
        assert sample["value"] == {"success": 0.0, "reward": 0.0, "turns": 3, "invalid": 3}
        assert len(of_role(sample, "assistant")) == 3


def test_tools_are_called_by_the_models_api_and_each_call_is_answered(logs: dict[str, Any]) -> None:
    log = logs["tools"]
    assert log["metrics"]["success/accuracy"] == 1.0
    for sample, (_, shown, total) in zip(log["samples"], native(TOOLS), strict=True):
        assert sample["value"]["reward"] == pytest.approx(total)
        assert of_role(sample, "user") == shown[:1]
        answers = [call for role, _, call in sample["messages"] if role == "tool"]
        assert answers
        assert all(answer.startswith("call-") for answer in answers)
        assert not any("<tool_call>" in text for text in of_role(sample, "system"))


def test_tools_may_be_told_in_words_for_models_without_an_api_for_them(
    logs: dict[str, Any],
) -> None:
    for sample in logs["no calls"]["samples"]:
        assert sample["value"]["invalid"] == 2
        [system] = of_role(sample, "system")
        assert "<tool_call>" in system


def test_a_failed_episode_is_an_error_and_no_zero(logs: dict[str, Any]) -> None:
    log = logs["failing"]
    failed = [sample for sample in log["samples"] if sample["error"]]
    assert len(failed) == log["scored"] == 4
    assert log["status"] == "success"
    assert all("the world ended" in sample["error"] for sample in failed)
    assert all(sample["value"] is None for sample in failed)
    scored = [sample["value"]["reward"] for sample in log["samples"] if not sample["error"]]
    assert log["metrics"]["reward/mean"] == pytest.approx(math.fsum(scored) / 4)
    assert log["metrics"]["turns/mean"] == 2.0


def told(program: str, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(real_inspect.programs() / program), *arguments],
        env=real_inspect.environment(**more),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def test_the_command_evaluates_a_checkpoint_that_agentrl_serves(tmp_path: Path) -> None:
    model, port = save_model(tmp_path / "model", "qwen3"), free_port()
    words: Sequence[str] = ("--port", str(port), "--out", str(tmp_path / "kept"))
    command = [sys.executable, "-m", "agentrl", "serve", str(model), *words]
    server = subprocess.Popen(
        [*command, "renderer=plain", "sampling.max_tokens=5"],
        env=real_inspect.environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None
    try:
        assert "OPENAI_BASE_URL" in server.stdout.readline()
        done = told(
            "inspect", "eval", "agentrl/play",
            *("-T", "env=babyai", "-T", "max_turns=2", "-T", "tasks=2", "--limit", "1"),
            *("--model", "openai-api/agentrl/policy", "--display", "none", "--log-format", "json"),
            *("--log-dir", str(tmp_path / "logs")),
            AGENTRL_BASE_URL=f"http://127.0.0.1:{port}/v1",
            AGENTRL_API_KEY="one",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr + done.stdout
    finally:
        server.kill()
        server.stdout.close()
        server.wait(10)
    [path] = (tmp_path / "logs").iterdir()
    log = json.loads(path.read_text())
    [sample] = log["samples"]
    assert (log["status"], sample.get("error")) == ("success", None)
    assert sample["scores"]["outcome"]["value"]["turns"] == 2
