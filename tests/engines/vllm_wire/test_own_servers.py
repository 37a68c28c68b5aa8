"""Servers that the run starts: processes that are killed, late, or cannot keep their port."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agentrl.cli import main
from agentrl.core.errors import DeadlineError, EngineError
from agentrl.core.types import Group
from agentrl.engines.vllm.engine import Vllm
from support.fake_vllm import interpreter
from support.fault_log import FaultLog
from support.models import CHATML, save_model, shared_policy, trained_policy
from support.wire import Weights, collected, play

ROOT = Path(__file__).parents[3]


def serving(folder: Path) -> list[int]:
    """Processes that serve a policy with this folder's interpreter."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0") if entry.name.isdigit() else []
        except OSError:  # it is gone by now
            continue
        is_served = any(word.endswith(b"serve_fake.py") for word in words)
        if is_served and f"FAKE_HOME={folder}".encode() in (entry / "environ").read_bytes():
            found.append(int(entry.name))
    return found


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Marks the processes of this test."""
    monkeypatch.setenv("FAKE_HOME", str(tmp_path))
    return tmp_path


@pytest.mark.slow
def test_a_server_that_is_killed_is_started_again_and_no_deadline_counts_that(
    home: Path, fault_log: FaultLog
) -> None:
    policy = trained_policy(steps=4)
    weights = Weights(policy)
    noticed: list[float] = []

    async def verb(engine: Vllm) -> list[Group]:
        await weights.push(engine)
        [pid] = serving(home)
        playing = asyncio.create_task(collected(engine, policy, timeout_s=1.5, deadline_s=2.0))
        await asyncio.sleep(0.02)
        os.kill(pid, signal.SIGKILL)
        killed = time.monotonic()
        assert engine._pool is not None
        while engine._pool.ready:
            await asyncio.sleep(0.01)
        noticed.append(time.monotonic() - killed)
        groups = await playing
        assert len(serving(home)) == 1
        assert serving(home) != [pid]
        return groups

    groups = play(Vllm(python=interpreter(home), silence_s=2.0), policy, verb)
    assert weights.check(groups) == {1}
    assert serving(home) == []
    fault_log.groups(
        "engine",
        "a vLLM server of the run is killed by SIGKILL, and started again",
        "the only server",
        deadline_s=2.0,
        groups=groups,
        noticed_s=noticed[0],
    )


@pytest.mark.slow
def test_a_server_that_fails_again_and_again_is_dropped(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_VLLM", json.dumps({"faults": ["memory"]}))

    async def verb(engine: Vllm) -> list[Group]:
        await collected(engine, shared_policy(), timeout_s=30.0)
        return await collected(engine, shared_policy(), step=1)

    engine = Vllm(python=interpreter(home), silence_s=2.0, restarts=1)
    groups = play(engine, shared_policy(), verb)
    failures = [str(t.failure) for group in groups for t in group.trajectories]
    says = ("no vLLM server is left: http", "it was started again 1 times before")
    assert all(words in failure for failure in failures for words in says)
    assert serving(home) == []


def test_a_server_that_starts_too_slowly_ends_the_run_and_itself(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_VLLM", json.dumps({"sleep_s": 60}))

    async def verb(engine: Vllm) -> None:
        raise AssertionError("it started")

    began = time.monotonic()
    with pytest.raises((EngineError, DeadlineError), match=r"did not answer within 1 s"):
        play(Vllm(python=interpreter(home), start_s=1.0), shared_policy(), verb)
    assert time.monotonic() - began < 5
    assert serving(home) == []


def command(folder: Path, *words: str) -> list[str]:
    return [
        *(sys.executable, "-m", "agentrl", "serve-vllm", str(folder)),
        *(f"python={interpreter(folder)}", *words),
    ]


@pytest.mark.slow
def test_serve_vllm_serves_until_ctrl_c(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save_model(home, "llama", CHATML)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("VLLM_API_KEY", "k-7")
    started = subprocess.Popen(
        command(folder, "--port", str(port)), stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert started.stdout is not None
    said = ""
    while "in the environment" not in said and (line := started.stdout.readline()):
        said += line
    assert f"ready: engine.name=vllm engine.urls=[http://127.0.0.1:{port}]" in said
    assert len(serving(home)) == 1
    started.send_signal(signal.SIGINT)
    assert started.wait(20) == 130
    started.stdout.close()
    assert serving(home) == []


def test_serve_vllm_does_not_take_a_port_from_somebody_else(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = save_model(home, "llama", CHATML)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        words = command(folder, "--port", str(port))[3:]
        assert main(words) == 1
    assert f"127.0.0.1:{port} is taken" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("replicas=2",), "leave out urls and replicas"),
        (("gpu_memory=2",), "gpu_memory"),
        (("kv_gb=2",), "did you mean 'kv_gib'"),
    ],
)
def test_serve_vllm_refuses_what_one_server_cannot_have(
    words: tuple[str, ...], says: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = save_model(home, "llama", CHATML)
    assert main(["serve-vllm", str(folder), *words]) == 2
    assert says in capsys.readouterr().err
