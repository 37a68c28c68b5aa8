"""A disk that fills up, without filling one."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def room(size: int) -> None:
    """Files of this process may grow to `size` bytes, and every write beyond fails; -1: no limit
    of ours."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size if size >= 0 else hard, hard))


@contextmanager
def full_disk(path: Path, spare: int) -> Iterator[None]:
    """No file of this process can grow past `path`'s size and `spare` bytes more."""
    room(path.stat().st_size + spare)
    try:
        yield
    finally:
        room(-1)
