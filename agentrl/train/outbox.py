"""Files of a run that could not be written (a full disk, say) wait here and are tried again."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from agentrl.core.errors import TrainingError

Write = Callable[[], object]


@dataclass(kw_only=True)
class Outbox:
    """Writes in order: one that fails waits, and so do those after it, until the next try.

    Training goes on meanwhile. `flush` at the end refuses to call a run done whose files are not
    on disk.
    """

    say: Callable[[str], None]
    _waiting: deque[tuple[str, Write]] = field(default_factory=deque, init=False)

    @property
    def waiting(self) -> int:
        """How many files wait."""
        return len(self._waiting)

    def write(self, what: str, write: Write) -> None:
        """Write now, or keep it for the next call if that fails. `what` names it in messages."""
        self._waiting.append((what, write))
        was_waiting = self.waiting > 1
        error = self._try()
        if error is not None and not was_waiting:
            self.say(
                f"{what} could not be written ({error}); it is kept in memory and tried again. "
                "Free some space: training goes on"
            )
        elif error is None and was_waiting:
            self.say("the files that were waiting are written")

    def flush(self) -> None:
        """Write everything that waits. Raises `TrainingError` if that still fails."""
        error = self._try()
        if error is not None:
            raise TrainingError(
                f"{self.waiting} file(s) of the run could not be written, the first of them "
                f"{self._waiting[0][0]} ({error}): free some space and go on with --resume auto"
            )

    def _try(self) -> OSError | None:
        while self._waiting:
            try:
                self._waiting[0][1]()
            except OSError as error:
                return error
            self._waiting.popleft()
        return None
