"""OpenEnv's own client and a server of its classes, in an interpreter that knows nothing of us."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

ROOT = Path(__file__).parents[2]
INSIDE = Path(__file__).parent / "openenv_inside"
START_S = 60.0
SESSIONS = 4
"""That a server has at once."""


def interpreter() -> str:
    """That of the environment that `.ci/install-adapters` made, or of AGENTRL_OPENENV_VENV; skips
    the test if it is not there."""
    venv = ROOT / os.environ.get("AGENTRL_OPENENV_VENV", ".venv-openenv")
    python = venv / "bin/python"
    if not python.exists():
        pytest.skip(f"openenv-core is not in {venv}: .ci/install-adapters")
    return str(python)


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def served(port: int) -> Iterator[subprocess.Popen[bytes]]:
    """A server of OpenEnv's classes, once it answers."""
    command = [interpreter(), str(INSIDE / "server.py"), str(port), str(SESSIONS)]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    process = subprocess.Popen(command, env=environment)
    try:
        due = time.monotonic() + START_S
        while True:
            try:
                if httpx.get(f"http://127.0.0.1:{port}/health", trust_env=False).is_success:
                    break
            except httpx.TransportError:
                pass
            assert process.poll() is None, "the server ended"
            assert time.monotonic() < due, "the server does not answer"
            time.sleep(0.1)
        yield process
    finally:
        process.kill()
        process.wait(10)


def played(url: str, episodes: Sequence[dict[str, Any]]) -> list[list[Any]]:
    """What OpenEnv's own client sees in these episodes, played all at once."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [interpreter(), str(INSIDE / "client.py"), url],
        input=json.dumps(list(episodes)),
        env=environment,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: list[list[Any]] = json.loads(done.stdout)
    return found
