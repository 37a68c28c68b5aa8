"""Metrics as JSON lines: `FOLDER/metrics.jsonl`, one object per step, readable while a run goes on.

The same few functions read and append every other JSON-lines file of a run folder.
"""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from agentrl.core.errors import DataError
from agentrl.core.registry import register
from agentrl.core.types import Json

METRICS_FILE = "metrics.jsonl"

logger = logging.getLogger(__name__)


@register("track", "jsonl")
@dataclass(kw_only=True)
class JsonLines:
    """Appends `{"step", "seconds", ...metrics}` to metrics.jsonl and flushes each line.

    `seconds` counts from `open`; a NaN or an infinity is written as null.
    """

    def __post_init__(self) -> None:
        self._file: TextIO | None = None
        self._opened = 0.0

    def open(self, folder: Path, name: str, total_steps: int, *, resumed: int = 0) -> None:
        """Go on after the line of step `resumed` of the folder's file, or begin it."""
        folder.mkdir(parents=True, exist_ok=True)
        _drop_torn_tail(folder / METRICS_FILE)
        cut_back(folder, resumed)
        self._file = (folder / METRICS_FILE).open("a", encoding="utf-8")
        self._opened = time.monotonic()

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write one line. Raises `DataError` before `open` and after `close`."""
        if self._file is None:
            raise DataError(f"metrics of step {step} came while no file is open: call open() first")
        seconds = round(time.monotonic() - self._opened, 3)
        line: dict[str, Json] = {"step": step, "seconds": seconds}
        line |= {key: finite(value) for key, value in metrics.items()}
        self._file.write(json.dumps(line, allow_nan=False) + "\n")
        self._file.flush()

    def say(self, text: str) -> None:
        """Lines for people are not metrics."""

    def close(self) -> None:
        """Close the file; may be called twice."""
        if self._file is not None:
            self._file.close()
            self._file = None


def finite(value: float | None) -> float | None:
    """The value, or None for what JSON cannot say (NaN, infinities)."""
    return value if value is not None and math.isfinite(value) else None


def append_line(path: Path, line: Mapping[str, Json]) -> None:
    """Add one object to a JSON-lines file, made where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _drop_torn_tail(path)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line, allow_nan=False) + "\n")


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
    for number, text in enumerate(whole.splitlines(), start=1):
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
    path = folder / METRICS_FILE
    lines = read_metrics(folder)
    kept = [line for line in lines if isinstance(at := line.get("step"), int) and at <= step]
    if len(kept) < len(lines):
        write_lines(path, kept)
    return len(lines) - len(kept)


def _drop_torn_tail(path: Path) -> None:
    """Cut what follows the last newline: the half line of a run that was killed as it wrote."""
    if not path.exists():
        return
    data = path.read_bytes()
    end = data.rfind(b"\n") + 1
    if end < len(data):
        logger.warning("%s: dropped an unfinished last line of %d bytes", path, len(data) - end)
        os.truncate(path, end)
