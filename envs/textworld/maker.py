"""The process that makes games: `python -m agentrl.envs.textworld.maker`.

A game can take forever to make, and only a process can be killed. It takes a JSON object per line
and answers with two lines, `begun` (it may wait for makers of other processes) and a JSON object.
It ends when its input does, and when nothing was asked of it for a minute.

Games lie in a folder per kind of game: `SEED.json` is the game, `SEED.z8` the compiled one, and
`SEED.start` says what is known of it (`{}`: the seed makes no game). Each file appears whole.
"""

from __future__ import annotations

import fcntl
import json
import os
import queue
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agentrl.envs.textworld import package

IDLE_S = 60.0


def main() -> None:
    """Answer until the input ends, or nothing comes any more."""
    os.setsid()
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what the package prints is no answer
    asked: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(asked,), daemon=True).start()
    package.quick()
    while True:
        try:
            request = json.loads(asked.get(timeout=IDLE_S))
        except queue.Empty:
            return
        answers.write(json.dumps(_answer(request, lambda: answers.write("begun\n"))) + "\n")


def _listen(asked: queue.SimpleQueue[str]) -> None:
    for line in sys.stdin:
        asked.put(line)
    os.killpg(0, signal.SIGKILL)  # the compilers too


def _answer(request: dict[str, Any], begun: Callable[[], object]) -> dict[str, str]:
    folder = Path(request["folder"])
    try:
        with _alone(folder):
            begun()
            if request["verb"] == "make":
                make(folder, request["settings"], request["seed"])
            else:
                translate(folder, request["seed"])
    except Exception as error:  # noqa: BLE001 - whoever asked raises it
        return {"error": f"{type(error).__name__}: {error}"}
    return {}


def make(folder: Path, settings: dict[str, Any], seed: int) -> None:
    """Make a seed's game unless it is there."""
    if (folder / f"{seed}.start").exists():
        return
    with _whole(folder / f"{seed}.json") as place:
        made = package.make(settings, seed, place)
    write(folder / f"{seed}.start", json.dumps(made._asdict() if made else {}))


def translate(folder: Path, seed: int) -> None:
    """Compile a seed's game unless it is compiled."""
    if not (folder / f"{seed}.z8").exists():
        with _whole(folder / f"{seed}.z8") as place:
            package.compile_game(folder / f"{seed}.json", place)


def write(path: Path, text: str) -> None:
    """Let a file appear whole."""
    with _whole(path) as place:
        place.write_text(text)


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """Where to write a file that then appears whole, if it was written."""
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        place = Path(folder) / path.name
        yield place
        if place.exists():
            place.replace(path)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait until no other process makes games of this kind."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    main()
