"""The simulator's own solutions, each asked for once and kept: it does not give the same one twice.

They lie in `TASK/VARIATION.json` of a cache folder; whoever writes one first decides what it is.
"""

from __future__ import annotations

import json
import os
import tempfile
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from agentrl.envs.scienceworld.jvm import POOL


class Source(NamedTuple):
    """What decides a solution, and who finds it."""

    cache: str
    simplify: str
    jvms: int
    heap_mib: int
    limit: float
    """Seconds that finding one may take."""


def default_cache() -> str:
    """`$XDG_CACHE_HOME/agentrl/scienceworld`, or in `~/.cache`."""
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return str(Path(home).expanduser() / "agentrl" / "scienceworld")


@lru_cache(maxsize=4096)
def solution(source: Source, task: str, variation: int) -> tuple[str, ...]:
    """A solution's actions. Raises `EnvError` if the simulator fails or takes too long."""
    kind = source.simplify.replace(",", "+") or "full"
    path = Path(source.cache) / kind / task / f"{variation}.json"
    if not path.exists():
        _keep(path, found(source, task, variation))
    return tuple(json.loads(path.read_text())["actions"])


def found(source: Source, task: str, variation: int) -> list[str]:
    """A solution, of a world of its own."""
    jvm = POOL.lend(source.jvms, source.heap_mib)
    world = jvm.world(source.limit)
    jvm.loads += 1
    try:
        jvm.call(world, "load", source.limit, task, variation, source.simplify, True)
        actions = jvm.call(world, "getGoldActionSequence", source.limit)
        return jvm.strings(str(actions), source.limit)
    finally:
        jvm.forget(world, source.limit)


def _keep(path: Path, actions: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".part") as file:
        json.dump({"schema": 1, "actions": actions}, file)
        file.flush()
        with suppress(FileExistsError):
            os.link(file.name, path)
