"""Answers that were written down before: by hand, by a script, or by a model that was asked."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from agentrl.core.errors import ProposerError
from agentrl.core.exploring import Question, Voice
from agentrl.core.registry import register
from agentrl.explore.asking import as_choice
from agentrl.explore.tables import AnswerTable, read_table


@register("proposer", "table")
@dataclass(kw_only=True)
class Table:
    """Answers from a file of JSON lines (`agentrl/explore/tables.py`), without a model. An answer
    that is an option's own text chooses it."""

    path: Path
    """The file."""
    by: str = ""
    """Whose recorded answers to whole questions count (`server` records under its model's name)."""
    misses: int = field(default=0, init=False)
    """Questions that it had no answer to."""
    _table: AnswerTable | None = field(default=None, init=False, repr=False, compare=False)

    async def start(self, folder: Path, voice: Voice | None) -> None:
        """Read the file. Raises `ConfigError` if it is no table."""
        self._table = read_table(self.path)

    async def answer(self, question: Question, seed: int) -> str:
        """As it is written. Raises `ProposerError` if nothing is."""
        if self._table is None:
            self._table = read_table(self.path)
        said = self._table.find(question, self.by)
        if said is None:
            self.misses += 1
            raise ProposerError(
                f"{self.path} has no answer to {question.kind!r} at {question.key!r} of task "
                f"{question.task.id}"
            )
        return as_choice(said, question.options)

    async def close(self) -> None:
        """Nothing is open."""
