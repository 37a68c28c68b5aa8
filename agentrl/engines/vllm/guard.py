"""Stands between a run and a server that it started: when the run is gone, so is the server.

A script of its own that imports nothing of agentrl: `python guard.py GRACE_S COMMAND...`. It starts
the command and ends when that ends, with its exit code (128 + N after signal N). When its standard
input closes, because the run asks for the end or has died, however it died, it ends the command and
all that descends from it: by SIGTERM, and after GRACE_S seconds by SIGKILL.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
POLL_S = 0.5
STEP_S = 0.02


def main(grace_s: float, command: Sequence[str]) -> int:
    """Run the command; its exit code."""
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # orphans of the command become our children
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: None)  # the pipe alone says when to end
    parent = os.getppid()
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        # One thread runs here, so it is safe to call something between fork and exec.
        preexec_fn=lambda: libc.prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0),
    )
    over = os.pidfd_open(child.pid)
    while child.poll() is None and os.getppid() == parent:
        readable, _, _ = select.select([0, over], [], [], POLL_S)
        if 0 in readable and not os.read(0, 1):
            break
    end(child, grace_s)
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


def end(child: subprocess.Popen[bytes], grace_s: float) -> None:
    """End the command and its descendants. They come to us one by one, as their parents die."""
    deadline = time.monotonic() + grace_s
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGTERM)
    while child.poll() is None or any(reaped(child)):
        if time.monotonic() > deadline:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            for pid in reaped(child):
                os.kill(pid, signal.SIGKILL)
        time.sleep(STEP_S)


def reaped(child: subprocess.Popen[bytes]) -> list[int]:
    """Our living children, the command aside; those that have ended are collected."""
    living = []
    for process in processes():
        if process.parent != os.getpid() or process.pid == child.pid:
            continue
        if process.state == "Z":
            os.waitpid(process.pid, os.WNOHANG)
        else:
            living.append(process.pid)
    return living


class Process(NamedTuple):
    """A line of the process table."""

    pid: int
    state: str
    parent: int


def processes() -> Iterator[Process]:
    """The process table."""
    for entry in Path("/proc").iterdir():
        with suppress(OSError):  # it may be gone by now
            if entry.name.isdigit():
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
                yield Process(int(entry.name), state, int(parent))


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), sys.argv[2:]))
