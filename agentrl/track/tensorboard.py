"""TensorBoard: scalars of every step and a few episodes as text, in `FOLDER/tensorboard`.

Event files are written directly, record by record (`TFRecord` framing by TensorBoard's own writer):
its queue and thread would hide a full disk and lose what they hold when a process is killed.
"""

from __future__ import annotations

import importlib.util
import os
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge

from agentrl.core.errors import MissingExtraError, TrackError
from agentrl.core.registry import register
from agentrl.track.appender import Appender
from agentrl.track.samples import COLUMNS, Cell, is_due, rows, sample
from agentrl.track.trajectories import EpisodeRecord

if TYPE_CHECKING:
    from tensorboard.compat.proto.event_pb2 import Event

TENSORBOARD_FOLDER = "tensorboard"
_WRITTEN = {ord(sign): f"&#{ord(sign)};" for sign in "&<>|\\`*_[]~"} | {ord("\n"): "<br>"}
"""Text of the run holds no Markdown, no HTML and no line end in a table's cell."""


@register("track", "tensorboard")
@dataclass(kw_only=True)
class TensorBoard:
    """Event files for `tensorboard --logdir FOLDER/tensorboard`, one for each start of the run.

    A resumed run opens a file that begins with `SessionLog.START` at its next step, by which
    TensorBoard forgets the later steps of earlier files. Entries that a full disk refuses wait in
    memory and are tried again; `close` raises `TrackError` if some are still not written.
    """

    episodes_every: Annotated[int, Ge(0)] = 10
    """Steps between tables of sample episodes (0: none); the first step has one."""
    episodes_shown: Annotated[int, Ge(1)] = 4
    """Episodes of a table, successes and failures in turn (1 or more)."""

    def __post_init__(self) -> None:
        if importlib.util.find_spec("tensorboard") is None:
            raise MissingExtraError("tensorboard", "tensorboard")
        self._file: Appender | None = None

    def open(self, folder: Path, name: str, total_steps: int, *, resumed: int = 0) -> None:
        """Begin an event file that takes back every step after `resumed`."""
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.plugins.text.summary_v2 import text_pb

        self._file = Appender(_next_file(folder / TENSORBOARD_FOLDER))
        self._write(Event(file_version="brain.Event:2"))
        self._write(Event(step=resumed + 1, session_log=SessionLog(status=SessionLog.START)))
        config = folder / "config.yaml"
        if config.exists() and not resumed:
            text = f"```yaml\n{config.read_text(encoding='utf-8')}\n```"
            self._write(Event(step=0, summary=text_pb("config", text)))

    def episodes(self, step: int, episodes: Sequence[EpisodeRecord]) -> None:
        """A Markdown table of a few episodes, where one is due."""
        if not episodes or not is_due(step, self.episodes_every):
            return
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.plugins.text.summary_v2 import text_pb

        table = markdown_table(rows(sample(episodes, self.episodes_shown)))
        self._write(Event(step=step, summary=text_pb("episodes", table)))

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """One event with a scalar for each metric, NaN and infinities as they are."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=key, simple_value=value) for key, value in metrics.items()]
        self._write(Event(step=step, summary=Summary(value=values)))

    def evaluation(self, step: int, name: str, numbers: Mapping[str, float]) -> None:
        """Scalars `eval/NAME/...`."""
        self.log(step, {f"eval/{name}/{key}": value for key, value in numbers.items()})

    def say(self, text: str) -> None:
        """Lines for people are not shown."""

    def close(self) -> None:
        """Close the file; may be called twice. Raises `TrackError` for entries that are lost."""
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def _write(self, event: Event) -> None:
        from tensorboard.summary.writer.record_writer import RecordWriter

        if self._file is None:
            raise TrackError("tensorboard: no event file is open: call open() first")
        event.wall_time = time.time()
        framed = BytesIO()
        RecordWriter(framed).write(event.SerializeToString())
        self._file.write(framed.getvalue())


def markdown_table(table: Sequence[Sequence[Cell]]) -> str:
    """A table under `COLUMNS` as TensorBoard renders it."""
    lines = [COLUMNS, ["---"] * len(COLUMNS), *([_cell(value) for value in row] for row in table)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: Cell) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "-" if value is None else str(value).translate(_WRITTEN)


def _next_file(folder: Path) -> Path:
    """A name that sorts after the folder's other event files, as readers go through them."""
    known = [path.name.split(".")[3] for path in folder.glob("events.out.tfevents.*")]
    latest = max((int(stamp) for stamp in known if stamp.isdigit()), default=0)
    stamp = max(int(time.time()), latest + 1)
    return folder / f"events.out.tfevents.{stamp:010d}.{socket.gethostname()}.{os.getpid()}.0"
