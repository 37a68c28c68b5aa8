"""Games that were made: where they lie, and who makes those that are missing.

A game is made once for all processes of a machine, by a `Maker`: a process that a game which takes
too long to make is killed with.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import select
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple

import agentrl
from agentrl.core.errors import DeadlineError, EnvError
from agentrl.core.starts import Beginning, Starts, digest, split_of
from agentrl.core.types import Json, Split
from agentrl.envs.textworld.maker import write
from agentrl.envs.textworld.package import Made, version

WAIT_S = 600.0
"""How long the makers of other processes are waited for."""
PACKAGE_SPLITS: dict[Split, str] = {"train": "train", "dev": "valid", "test": "test"}

_log = logging.getLogger(__name__)


class Source(NamedTuple):
    """What decides the games."""

    cache: str
    """Folder of all games."""
    settings: str
    """The package's settings and the kind of game, as JSON."""
    make_s: float
    """Seconds after which making a game is given up."""

    @property
    def folder(self) -> Path:
        """Where games of this kind lie."""
        game = json.loads(self.settings)["game"]
        kind = f"{game}-{digest(self.settings)[:12]}"
        return Path(self.cache) / f"textworld-{version()}" / kind


def default_cache() -> str:
    """`$XDG_CACHE_HOME/agentrl/textworld`, or in `~/.cache`."""
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return str(Path(home).expanduser() / "agentrl" / "textworld")


def made(source: Source, seed: int) -> Made | None:
    """What is known of a seed's game, which is made if need be; None if the seed makes none.

    A seed whose game takes too long to make is noted as one that makes none.

    Raises:
        EnvError: the package failed.
        DeadlineError: other processes make games of this kind, and go on too long.
    """
    note = source.folder / f"{seed}.start"
    if not note.exists():
        request = {"settings": json.loads(source.settings), "seed": seed}
        try:
            MAKER.ask("make", source, request)
        except TooLateError:
            _log.warning(
                "textworld: the game of seed %d was not made within %g s and is left out (%s)",
                *(seed, source.make_s, source.settings),
            )
            write(note, json.dumps({}))
    known = json.loads(note.read_text())
    return Made(**known) if known else None


def story(source: Source, seed: int, *, is_compiled: bool) -> Path:
    """A seed's game as JSON or as a story file beside it, made if need be. Raises as `made`."""
    if made(source, seed) is None:
        raise EnvError(f"textworld: seed {seed} makes no game of {source.settings}")
    path = source.folder / f"{seed}.z8"
    if is_compiled and not path.exists():
        MAKER.ask("compile", source, {"seed": seed})
    return path if is_compiled else path.with_suffix(".json")


class TooLateError(DeadlineError):
    """Making a game took too long."""


class Maker:
    """The process that makes games (`maker.py`), started when one is missing."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, verb: str, source: Source, request: dict[str, Json]) -> None:
        """Let it do something. Raises `EnvError` if it failed, `TooLateError` if it was late."""
        order = {"verb": verb, "folder": str(source.folder), **request}
        with self._lock:
            lines = self._sent(json.dumps(order).encode() + b"\n")
            try:
                if self._line(lines, WAIT_S) != b"begun":
                    raise EnvError("textworld: the process that makes games said something else")
                answer = json.loads(self._line(lines, source.make_s))
            except BaseException:
                self._kill()
                raise
        if answer:
            raise EnvError(f"textworld: {verb} failed: {answer['error']} ({order})")

    def close(self) -> None:
        """End it, at once."""
        with self._lock:
            self._kill()

    def _sent(self, line: bytes) -> subprocess.Popen[bytes]:
        """Send a line, to a new process if the last one has gone."""
        for _ in range(2):
            process = self._process or self._begin()
            assert process.stdin is not None
            try:
                process.stdin.write(line)
                process.stdin.flush()
            except BrokenPipeError:
                self._kill()
            else:
                return process
        raise EnvError("textworld: the process that makes games ends as it begins")

    def _begin(self) -> subprocess.Popen[bytes]:
        root = str(Path(agentrl.__file__).parent.parent)
        paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "agentrl.envs.textworld.maker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        )
        return self._process

    def _line(self, process: subprocess.Popen[bytes], limit: float) -> bytes:
        """Its next line. Raises `TooLateError`, or `EnvError` if it died."""
        assert process.stdout is not None
        until, read = time.monotonic() + limit, b""
        while not read.endswith(b"\n"):
            ready, _, _ = select.select([process.stdout], [], [], until - time.monotonic())
            if not ready:
                raise TooLateError(f"textworld: a game was not made within {limit:g} s")
            byte = os.read(process.stdout.fileno(), 1)
            if not byte:
                raise EnvError("textworld: the process that makes games died")
            read += byte
        return read.strip()

    def _kill(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with suppress(ProcessLookupError, PermissionError):
            if os.getpgid(process.pid) == process.pid:  # it leads its own session by now
                os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            with suppress(BrokenPipeError):
                pipe.close()


MAKER = Maker()
atexit.register(MAKER.close)


@cache
def starts(source: Source) -> Starts:
    """One walk per kind of game and process: a hash of the world decides its split.

    What rooms and things are called makes another start, but not another split.
    """

    def begin(seed: int) -> Beginning | None:
        found = made(source, seed)
        if found is None:
            return None
        return Beginning(found.world[:8] + found.start[8:], "", {"turns": found.turns})

    return Starts(begin, place="env", what=f"textworld with {source.settings}")


@cache
def package_starts(source: Source, split: Split) -> Starts:
    """The same for games of which the package has splits of its own, which `source` names.

    The hash of the start must name that split too, because those splits share some games.
    """

    def begin(seed: int) -> Beginning | None:
        found = made(source, seed)
        if found is None or split_of(found.start) != split:
            return None
        data: dict[str, Json] = {"turns": found.turns, "split": PACKAGE_SPLITS[split]}
        return Beginning(found.start, "", data)

    return Starts(begin, place="env", what=f"textworld with {source.settings}")
