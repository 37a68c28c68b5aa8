"""What a process holds: threads, open files, processes that it started. Nothing may stay behind."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from multiprocessing import resource_tracker
from pathlib import Path


@dataclass(frozen=True)
class Held:
    """Counted once."""

    threads: int
    files: int
    children: frozenset[int]

    @classmethod
    def now(cls) -> Held:
        """As it is; multiprocessing's resource tracker, which stays for good, is left out."""
        files = len(os.listdir("/proc/self/fd"))
        return cls(threading.active_count(), files, children())

    def more(self, *, within_s: float = 10.0) -> str:
        """What is held beyond this after at most `within_s` seconds; empty for nothing."""
        until = time.monotonic() + within_s
        while True:
            now = Held.now()
            found = {
                "threads": now.threads - self.threads,
                # the first spawn starts the resource tracker, which keeps one pipe
                "files": now.files - self.files - 1,
                "processes": len(now.children - self.children),
            }
            left = ", ".join(f"{n} {what}" for what, n in found.items() if n > 0)
            if not left or time.monotonic() > until:
                return left
            time.sleep(0.02)


def children() -> frozenset[int]:
    """Processes that this one started and that still run."""
    tracker = getattr(resource_tracker._resource_tracker, "_pid", None)
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
        except OSError:  # ended meanwhile
            continue
        if int(parent) == os.getpid() and state != "Z":
            found.add(int(stat.parent.name))
    return frozenset(found - {tracker})
