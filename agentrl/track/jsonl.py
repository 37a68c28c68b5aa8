"""Metrics as JSON lines: `FOLDER/metrics.jsonl`, one object per step, readable while a run goes on.

The same few functions read and append every other JSON-lines file of a run folder.
"""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from agentrl.core.errors import DataError
from agentrl.core.registry import register
from agentrl.core.types import Json
from agentrl.track.appender import Appender
from agentrl.track.trajectories import EpisodeRecord

METRICS_FILE = "metrics.jsonl"

logger = logging.getLogger(__name__)


@register("track", "jsonl")
@dataclass(kw_only=True)
class JsonLines:
    """Appends `{"step", "seconds", ...metrics}` to metrics.jsonl; each line is written at once.

    `seconds` counts from the first `open`, pauses between a stop and a resume left out; a NaN or an
    infinity is written as null. Lines that a full disk refuses wait in memory and are tried again
    at each step; `close` raises `TrackError` if some are still not written.
    """

    def __post_init__(self) -> None:
        self._file: Appender | None = None
        self._began = 0.0

    def open(self, folder: Path, name: str, total_steps: int, *, resumed: int = 0) -> None:
        """Begin the folder's file, or go on after step `resumed`; later lines are dropped."""
        cut_back(folder, resumed)
        last = read_metrics(folder)[-1:]
        before = last[0].get("seconds") if last else None
        self._began = time.monotonic() - (before if isinstance(before, float | int) else 0.0)
        self._file = Appender(folder / METRICS_FILE)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write one line. Raises `DataError` before `open` and after `close`."""
        if self._file is None:
            raise DataError(f"metrics of step {step} came while no file is open: call open() first")
        line: dict[str, Json] = {"step": step, "seconds": round(time.monotonic() - self._began, 3)}
        line |= {key: finite(value) for key, value in metrics.items()}
        self._file.write(to_line(line))

    def episodes(self, step: int, episodes: Sequence[EpisodeRecord]) -> None:
        """Episodes stand in files of their own (`trajectories/`)."""

    def evaluation(self, step: int, name: str, numbers: Mapping[str, float]) -> None:
        """Evaluations stand in a file of their own (`evals.jsonl`)."""

    def say(self, text: str) -> None:
        """Lines for people are not metrics."""

    def close(self) -> None:
        """Close the file; may be called twice. Raises `TrackError` for lines that are lost."""
        file, self._file = self._file, None
        if file is not None:
            file.close()


def to_line(value: Mapping[str, Json]) -> bytes:
    """One line of a JSON-lines file."""
    return (json.dumps(value, allow_nan=False) + "\n").encode()


def finite(value: float | None) -> float | None:
    """The value, or None for what JSON cannot say (NaN, infinities)."""
    return value if value is not None and math.isfinite(value) else None


def append_line(path: Path, line: Mapping[str, Json]) -> None:
    """Add one object to a JSON-lines file, made where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _drop_torn_tail(path)
    with path.open("ab") as file:
        file.write(to_line(line))


def write_lines(path: Path, lines: Sequence[Mapping[str, Json]]) -> None:
    """Replace a JSON-lines file, whole or not at all; without lines an absent one stays absent."""
    if not lines and not path.exists():
        return
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        text = "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines)
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_lines(path: Path) -> list[dict[str, Json]]:
    """The objects of a JSON-lines file; an absent file has none.

    A last line without a newline is one that is still being written: it is left out.

    Raises:
        DataError: a whole line is not a JSON object; the message names file and line.
    """
    if not path.exists():
        return []
    whole, _, _ = path.read_text(encoding="utf-8").rpartition("\n")
    lines: list[dict[str, Json]] = []
    for number, text in enumerate(whole.split("\n"), start=1):
        if not text.strip():
            continue
        try:
            line = json.loads(text)
        except json.JSONDecodeError as error:
            raise DataError(f"{path}:{number}: expected a JSON object ({error})") from error
        if not isinstance(line, dict):
            raise DataError(f"{path}:{number}: expected a JSON object, got {text[:60]!r}")
        lines.append(line)
    return lines


def read_metrics(folder: Path) -> list[dict[str, Json]]:
    """The lines of a run's metrics.jsonl, in the order they were written."""
    return read_lines(folder / METRICS_FILE)


def cut_back(folder: Path, step: int) -> int:
    """Drop the metrics after `step`, as a run does that resumes from the checkpoint of that step.

    Returns:
        How many lines were dropped.
    """
    return cut_lines(folder / METRICS_FILE, lambda line: _step_of(line) <= step)


def cut_lines(path: Path, keep: Callable[[Mapping[str, Json]], bool]) -> int:
    """Drop the lines of a JSON-lines file that are not to be kept, and a torn last one.

    What is kept stays as it was, byte for byte; the file is replaced whole or not at all.

    Returns:
        How many whole lines were dropped.

    Raises:
        DataError: as `read_lines`.
    """
    if not path.exists():
        return 0
    _drop_torn_tail(path)
    texts = [text for text in path.read_text(encoding="utf-8").split("\n") if text.strip()]
    lines = read_lines(path)
    kept = [text for text, line in zip(texts, lines, strict=True) if keep(line)]
    if len(kept) < len(lines):
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        with temporary.open("w", encoding="utf-8") as file:
            file.write("".join(f"{text}\n" for text in kept))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    return len(lines) - len(kept)


def _step_of(line: Mapping[str, Json]) -> float:
    """The line's step; a line without one belongs to no step that is kept."""
    step = line.get("step")
    return step if isinstance(step, int) else math.inf


def _drop_torn_tail(path: Path) -> None:
    """Cut what follows the last newline: the half line of a run that was killed as it wrote."""
    if not path.exists():
        return
    data = path.read_bytes()
    end = data.rfind(b"\n") + 1
    if end < len(data):
        logger.warning("%s: dropped an unfinished last line of %d bytes", path, len(data) - end)
        os.truncate(path, end)
