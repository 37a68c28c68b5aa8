"""How servers start and end. No vLLM is needed: `support/stand_in.py` is started in its place."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agentrl.core.errors import DeadlineError, EngineError
from agentrl.engines.vllm.server import Server, ServerSettings, launch

SOON_S = 20.0
ROOT = Path(__file__).parents[3]


def interpreter(folder: Path, version: str = "0.32.0+cpu") -> Path:
    """Looks like the interpreter of an environment that holds vLLM."""
    path = folder / "python"
    path.write_text(
        f'#!/bin/sh\nif [ "$2" = -c ]; then echo {version}; exit; fi\n'
        f'exec {sys.executable} {Path(__file__).parents[2] / "support/stand_in.py"} "$@"\n'
    )
    path.chmod(0o755)
    return path


def server(folder: Path, mode: str, *, port: int = 0, grace_s: float = 0.3) -> Server:
    """One that behaves as `mode` says."""
    settings = ServerSettings(
        python=interpreter(folder),
        port=port,
        environment={"STAND_IN": mode, "PIDS": str(folder / "pids")},
    )
    return Server(settings=settings, log=folder / "logs" / "server.log", grace_s=grace_s)


def living(folder: Path) -> list[int]:
    """Which processes of the stand-in are left."""
    pids = [int(line) for line in (folder / "pids").read_text().split()]
    return [pid for pid in pids if is_alive(pid)]


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_server_answers_and_leaves_nothing_behind(tmp_path: Path) -> None:
    async def run() -> None:
        one = server(tmp_path, "healthy")
        await one.start(tmp_path, SOON_S)
        assert one.is_alive
        assert one.url == f"http://127.0.0.1:{one.port}"
        assert one.api_key
        await one.stop()
        await one.stop()
        assert not one.is_alive

    asyncio.run(run())
    assert not living(tmp_path)


def test_a_server_that_dies_is_told_at_once_with_its_first_fault_and_last_lines(
    tmp_path: Path,
) -> None:
    began = time.monotonic()
    with pytest.raises(EngineError, match="exited with 1") as caught:
        asyncio.run(server(tmp_path, "dies").start(tmp_path, 300.0))
    assert time.monotonic() - began < SOON_S
    assert "(KeyError: 'first fault')" in str(caught.value)
    assert str(caught.value).endswith("RuntimeError: engine core failed")


def test_a_server_that_never_answers_is_ended_at_its_deadline(tmp_path: Path) -> None:
    one = server(tmp_path, "silent")
    with pytest.raises(DeadlineError, match="did not answer within 1 s"):
        asyncio.run(one.start(tmp_path, 1.0))
    assert not one.is_alive
    assert not living(tmp_path)


def test_a_start_that_is_given_up_leaves_nothing_behind(tmp_path: Path) -> None:
    one = server(tmp_path, "silent")

    async def run() -> None:
        async with asyncio.timeout(1.0):
            await one.start(tmp_path, 300.0)

    with pytest.raises(TimeoutError):
        asyncio.run(run())
    assert not living(tmp_path)


def test_a_server_that_ignores_sigterm_is_killed_with_children_that_left_its_session(
    tmp_path: Path,
) -> None:
    async def run() -> None:
        one = server(tmp_path, "stubborn")
        await one.start(tmp_path, SOON_S)
        assert len(living(tmp_path)) == 2
        await one.stop()

    asyncio.run(run())
    assert not living(tmp_path)


def test_a_server_does_not_outlive_a_run_that_is_killed(tmp_path: Path) -> None:
    interpreter(tmp_path)
    script = (
        "import asyncio, sys, time\nfrom pathlib import Path\n"
        "from agentrl.engines.vllm.server import Server, ServerSettings\n"
        f"folder = Path({str(tmp_path)!r})\n"
        "settings = ServerSettings(python=folder / 'python', environment="
        "{'STAND_IN': 'stubborn', 'PIDS': str(folder / 'pids')})\n"
        "server = Server(settings=settings, log=folder / 'log', grace_s=0.3)\n"
        "asyncio.run(server.start(folder, 20.0))\n"
        "print('up', flush=True)\ntime.sleep(600)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == b"up\n"
        assert len(living(tmp_path)) == 2
        run.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + SOON_S
    while living(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not living(tmp_path)


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(EngineError, match=rf"engine.port: 127.0.0.1:{port} is taken"):
            asyncio.run(server(tmp_path, "healthy", port=port).start(tmp_path, SOON_S))


def test_a_free_port_that_somebody_else_takes_first_is_exchanged(tmp_path: Path) -> None:
    async def run() -> None:
        one = server(tmp_path, "loses its port")
        await one.start(tmp_path, SOON_S)
        assert one.is_alive
        await one.stop()

    asyncio.run(run())
    assert (tmp_path / "lost").exists()


def test_another_server_at_the_port_is_not_taken_for_ours(tmp_path: Path) -> None:
    one = server(tmp_path, "foreign")
    with pytest.raises(EngineError, match=r"answered by another server \(of \['/elsewhere'\]\)"):
        asyncio.run(one.start(tmp_path, SOON_S))
    assert not one.is_alive


def test_an_interpreter_without_vllm_is_told(tmp_path: Path) -> None:
    settings = ServerSettings(python=Path(sys.executable))
    with pytest.raises(EngineError, match="has no vLLM"):
        asyncio.run(Server(settings=settings, log=tmp_path / "log").start(tmp_path, SOON_S))
    settings = ServerSettings(python=tmp_path / "nobody")
    with pytest.raises(EngineError, match="cannot be run"):
        asyncio.run(Server(settings=settings, log=tmp_path / "log").start(tmp_path, SOON_S))


@pytest.mark.parametrize("version", ["0.31.0+cpu", "0.32.0+cpu", "0.33.0"])
def test_the_command_asks_for_tempered_logprobs_tokens_and_pushes(version: str) -> None:
    settings = ServerSettings(python=Path("/v/bin/python"), lora_rank=8, extra=("--seed", "3"))
    found = launch(settings, version, Path("/model"), 8000, "key")
    text = " ".join(found.command)
    assert "--logprobs-mode processed_logprobs" in text
    assert "--enable-scale-out" in text
    assert "--generation-config vllm" in text
    assert '--weight-transfer-config {"backend": "agentrl_shm"}' in text
    assert "--enable-lora --max-lora-rank 8" in text
    assert text.endswith("--seed 3")
    assert found.environment["VLLM_SERVER_DEV_MODE"] == "1"
    assert found.environment["VLLM_API_KEY"] == "key"
    assert "key" not in found.command  # other users of the machine see command lines
    assert found.environment["PYTHONPATH"].endswith("/engines/vllm/extension")
    is_cpu = version.endswith("+cpu")
    assert ("VLLM_CPU_OMP_THREADS_BIND" in found.environment) is is_cpu
    assert ("--gpu-memory-utilization" in found.command) is not is_cpu


def test_settings_that_a_build_does_not_have_are_refused() -> None:
    python = Path("/v/bin/python")
    with pytest.raises(EngineError, match=r"vLLM 0\.30\.1, and agentrl drives 0\.31 to 0\.33"):
        launch(ServerSettings(python=python), "0.30.1", Path("/m"), 1, "")
    with pytest.raises(EngineError, match="cannot sleep"):
        launch(ServerSettings(python=python, can_sleep=True), "0.32.0+cpu", Path("/m"), 1, "")
    two = ServerSettings(python=python, gpus=(2, 3), can_sleep=True, memory_fraction=0.4)
    found = launch(two, "0.33.0", Path("/m"), 1, "")
    text = " ".join(found.command)
    assert found.environment["CUDA_VISIBLE_DEVICES"] == "2,3"
    assert "--gpu-memory-utilization 0.4 --tensor-parallel-size 2 --enable-sleep-mode" in text
