"""Appending to a file so that a full disk loses nothing: what cannot be written waits in memory."""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from pathlib import Path

from agentrl.core.errors import TrackError

logger = logging.getLogger(__name__)


class Appender:
    """A file that only grows, entry by entry; each is on disk (in the system's cache) or waits.

    After a failed write the file is cut back to its last whole entry, the entries since then are
    kept in order, and every later `write` tries them again. The first failure is logged, and so is
    the recovery.
    """

    def __init__(self, path: Path) -> None:
        """Open `path`, made where it is missing, to go on after what it holds.

        Raises:
            OSError: the file cannot be opened.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._descriptor: int | None = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._end = os.fstat(self._descriptor).st_size
        self._waiting: list[bytes] = []
        self.has_failed = False
        """Whether any write failed so far."""

    @property
    def waiting(self) -> int:
        """How many entries are not on disk."""
        return len(self._waiting)

    def write(self, entry: bytes) -> None:
        """Append one entry, after those that wait; a failure is logged, never raised.

        Raises:
            TrackError: the file is closed.
        """
        if self._descriptor is None:
            raise TrackError(f"{self._path} is closed: open the sink before it is written to")
        had_waiting = bool(self._waiting)
        self._waiting.append(entry)
        error = self._flush(self._descriptor)
        if error is None and had_waiting:
            logger.warning("%s: what waited is written", self._path)
        elif error is not None and not had_waiting:
            logger.warning(
                "%s cannot be written (%s): its entries wait in memory and are tried again with "
                "each new one; free some space on that disk",
                self._path,
                error,
            )

    def close(self) -> None:
        """Try once more and close; may be called twice.

        Raises:
            TrackError: some entries could not be written and are lost.
        """
        if self._descriptor is None:
            return
        error = self._flush(self._descriptor)
        with suppress(OSError):
            os.close(self._descriptor)
        self._descriptor = None
        lost, self._waiting = self._waiting, []
        if error is not None:
            raise TrackError(
                f"{self._path}: the last {len(lost)} entries could not be written and are lost "
                f"({error}); what stands in the file is whole"
            )

    def _flush(self, descriptor: int) -> OSError | None:
        """Write all that waits, or leave the file as it was and say why."""
        data = memoryview(b"".join(self._waiting))
        done = 0
        try:
            while done < len(data):
                done += os.write(descriptor, data[done:])
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(descriptor, self._end)
            self.has_failed = True
            return error
        self._end += done
        self._waiting.clear()
        return None
