"""Answers on disk: JSON lines that a proposer was heard to say, or that somebody wrote by hand.

A line has the `answer` and what it answers: `digest`, of the question's every word, or `kind` with
`key`, `task` or both. The first line names the format and who answered.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from agentrl.core.errors import ConfigError
from agentrl.core.exploring import Question
from agentrl.core.types import Json

FORMAT = 1
KNOWN = frozenset({"digest", "kind", "task", "key", "answer"})

Entry = Mapping[str, str]


@dataclass
class AnswerTable:
    """Answers by what they answer, the most exact first."""

    entries: list[Entry] = field(default_factory=list)
    _found: dict[tuple[str, ...], str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for entry in self.entries:
            self._enter(entry)

    def add(self, entry: Entry) -> None:
        """A later answer to the same replaces an earlier one."""
        self.entries.append(entry)
        self._enter(entry)

    def _enter(self, entry: Entry) -> None:
        if "digest" in entry:
            self._found["digest", entry["digest"]] = entry["answer"]
        if "task" in entry or "key" in entry:
            place = entry.get("kind", ""), entry.get("task", ""), entry.get("key", "")
            self._found[place] = entry["answer"]

    def find(self, question: Question, by: str = "") -> str | None:
        """The answer to this very question, or else to its kind at this key, of this task first."""
        kind, task, key = question.kind, question.task.id, question.key
        places = (
            ("digest", digest_of(question, by)),
            (kind, task, key),
            (kind, "", key),
            (kind, task, ""),
        )
        return next((self._found[place] for place in places if place in self._found), None)


def digest_of(question: Question, by: str = "") -> str:
    """SHA-256 of all that is said in a question, and of who is asked, 32 hex digits."""
    said = [(message.role, message.text) for message in question.history]
    words = [by, question.kind, question.system, said, question.text, question.options]
    return hashlib.sha256(json.dumps(words).encode()).hexdigest()[:32]


def read_table(path: Path) -> AnswerTable:
    """The table in a file.

    Raises:
        ConfigError: there is none, or a line is not as it should be.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"proposer: cannot read the table {path}: {error}") from error
    return AnswerTable(list(_entries(path, lines)))


def _entries(path: Path, lines: list[str]) -> Iterator[Entry]:
    for number, line in enumerate(lines, start=1):
        try:
            entry: Json = json.loads(line)
        except ValueError as error:
            if number == len(lines):  # whoever wrote it was stopped
                return
            raise ConfigError(f"{path}, line {number}: expected JSON ({error})") from error
        if number == 1 and isinstance(entry, dict) and "format" in entry:
            if entry["format"] != FORMAT:
                raise ConfigError(
                    f"{path}: expected a table of format {FORMAT}, got {entry['format']!r}"
                )
            continue
        if not _is_entry(entry):
            raise ConfigError(
                f"{path}, line {number}: expected texts under some of {', '.join(sorted(KNOWN))}, "
                f"with an answer, and a digest or a kind with task or key, got {line[:100]}"
            )
        yield entry  # type: ignore[misc]


def _is_entry(entry: object) -> bool:
    return (
        isinstance(entry, dict)
        and KNOWN.issuperset(entry)
        and all(isinstance(value, str) for value in entry.values())
        and "answer" in entry
        and ("digest" in entry or ("kind" in entry and ("key" in entry or "task" in entry)))
    )


def append_entry(path: Path, entry: Entry, about: Mapping[str, Json]) -> None:
    """Write a line at the end; the first one, of a new file, says what `about` says.

    Raises:
        OSError: it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        if file.tell() == 0:
            made = datetime.now(UTC).date().isoformat()
            file.write(json.dumps({"format": FORMAT, "made": made, **about}) + "\n")
        file.write(json.dumps(dict(entry)) + "\n")
