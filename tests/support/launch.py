"""Starts the ranks of a launch, as torchrun would, and ends them whatever happens."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How one rank ended; `seconds` counts from the launch. A rank that was late has code -9."""

    code: int
    output: str
    seconds: float


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def launcher_variables(rank: int, world: int, port: int) -> dict[str, str]:
    """What torchrun puts into the environment of one rank on one machine."""
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(world),
        "LOCAL_WORLD_SIZE": str(world),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


@contextmanager
def launch(
    arguments: Sequence[str],
    *,
    world: int,
    deadline_s: float,
    variables: Mapping[str, str] | None = None,
) -> Iterator[Callable[..., list[Ended]]]:
    """`python ARGUMENTS` once for each rank; what it yields waits for all of them, or for the
    ranks `only`, and ends the others."""
    port, began = free_port(), time.monotonic()
    settled = {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"}
    with ExitStack() as stack:
        outputs = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(world)]
        processes = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, *arguments],
                    env={
                        **os.environ,
                        **settled,
                        **launcher_variables(rank, world, port),
                        **(variables or {}),
                    },
                    stdout=outputs[rank],
                    stderr=subprocess.STDOUT,
                )
            )
            for rank in range(world)
        ]

        def wait(only: Collection[int] | None = None) -> list[Ended]:
            ended: dict[int, float] = {}
            awaited = set(range(world) if only is None else only)
            while awaited - ended.keys() and time.monotonic() < began + deadline_s:
                for rank, process in enumerate(processes):
                    if rank not in ended and process.poll() is not None:
                        ended[rank] = time.monotonic() - began
                time.sleep(0.02)
            kill()
            texts = []
            for file in outputs:
                file.seek(0)
                texts.append(file.read().decode(errors="replace"))
            return [
                Ended(code=process.returncode, output=text, seconds=ended.get(rank, float("inf")))
                for rank, (process, text) in enumerate(zip(processes, texts, strict=True))
            ]

        def kill() -> None:
            for process in processes:
                if process.poll() is None:
                    process.kill()
                process.wait()

        stack.callback(kill)
        yield wait
