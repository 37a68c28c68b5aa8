"""State graphs on disk: one SQLite file in the run's folder, many writers, whole after a kill.

A task's graph is built in memory and merged into the file in one transaction, so that a file holds
graphs as they were at some merge, never half of one. Ways are kept as trails: a row names the
action and the row before it. Counters of several writers add up; a cell keeps the better way.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from agentrl.core.errors import DataError
from agentrl.core.graph import Cell, StateGraph, Trail, Visit, as_text
from agentrl.core.types import Action

VERSION = 2
WAIT_S = 30.0
"""Seconds that a merge waits for another writer."""
CACHE_KIB = 16 * 1024
"""SQLite's page cache."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS tasks(task INTEGER PRIMARY KEY, name TEXT UNIQUE NOT NULL, start TEXT);
CREATE TABLE IF NOT EXISTS trails(trail INTEGER PRIMARY KEY, before INTEGER, action TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS cells(
  task INTEGER, key TEXT, trail INTEGER, depth INTEGER NOT NULL, score REAL NOT NULL,
  seen INTEGER NOT NULL, chosen INTEGER NOT NULL, since_new INTEGER NOT NULL,
  is_terminal INTEGER NOT NULL, is_success INTEGER NOT NULL,
  led INTEGER NOT NULL, found INTEGER NOT NULL, legal INTEGER, shown TEXT NOT NULL,
  PRIMARY KEY(task, key)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS edges(
  task INTEGER, source TEXT, action TEXT, target TEXT,
  PRIMARY KEY(task, source, action, target)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS visits(
  task INTEGER NOT NULL, step INTEGER NOT NULL, source TEXT NOT NULL, target TEXT NOT NULL,
  cells INTEGER NOT NULL, frontier INTEGER NOT NULL, is_success INTEGER NOT NULL);
"""
MERGE = """
INSERT INTO cells VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT(task, key) DO UPDATE SET
  seen = seen + excluded.seen, chosen = chosen + excluded.chosen,
  since_new = since_new + excluded.since_new, led = led + excluded.led,
  found = min(found, excluded.found), legal = coalesce(excluded.legal, legal),
  trail = CASE WHEN {better} THEN excluded.trail ELSE trail END,
  is_terminal = CASE WHEN {better} THEN excluded.is_terminal ELSE is_terminal END,
  is_success = CASE WHEN {better} THEN excluded.is_success ELSE is_success END,
  depth = CASE WHEN {better} THEN excluded.depth ELSE depth END,
  score = CASE WHEN {better} THEN excluded.score ELSE score END
""".format(better="(excluded.score > score OR (excluded.score = score AND excluded.depth < depth))")


@dataclass(eq=False)
class Archive:
    """The file. Closed by `close`, or at the end of a `with` block.

    Raises:
        DataError: it was written by another version, or is no archive.
    """

    path: Path
    _trails: dict[Trail, int] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(self.path, timeout=WAIT_S, isolation_level=None)
        try:
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.execute(f"PRAGMA cache_size=-{CACHE_KIB}")
            [version] = self._db.execute("PRAGMA user_version").fetchone()
            if version not in (0, VERSION):
                raise DataError(
                    f"{self.path}: expected an archive of version {VERSION}, and this is one of "
                    f"{version}; move it aside"
                )
            self._db.executescript(SCHEMA)
            self._db.execute(f"PRAGMA user_version={VERSION}")
        except sqlite3.DatabaseError as error:
            self._db.close()
            raise DataError(f"{self.path}: no archive can be opened here ({error})") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """May be called twice."""
        self._db.close()

    def merge(self, task: str, graph: StateGraph) -> None:
        """Add what is in the graph; its counters are taken as counts since the last merge, so a
        graph is merged once, or loaded anew.

        Raises:
            DataError: the disk is full, or another writer held the file for too long.
        """
        with self._transaction():
            number = self._number(task, graph.start.key)
            self._trails.clear()
            rows = [self._row(number, cell) for cell in graph.cells.values()]
            self._db.executemany(MERGE, rows)
            self._db.executemany(
                "INSERT OR IGNORE INTO edges VALUES(?, ?, ?, ?)",
                (
                    (number, source, json.dumps(action), target)
                    for source, reached in graph.edges.items()
                    for target, action in reached.values()
                ),
            )
            self._db.executemany(
                "INSERT INTO visits VALUES(?, ?, ?, ?, ?, ?, ?)",
                ((number, *visit) for visit in graph.visits),
            )
            self._trails.clear()

    def load(self, task: str) -> StateGraph | None:
        """The graph of a task, None where nothing was merged. Cells count what was seen so far."""
        found = self._db.execute("SELECT task, start FROM tasks WHERE name = ?", (task,)).fetchone()
        if found is None:
            return None
        number, start = found
        graph, trails = StateGraph(start), self._trails_of(number)
        query = "SELECT key, trail, score, seen, chosen, since_new, is_terminal, is_success"
        query += ", led, found, legal, shown FROM cells WHERE task = ?"
        for key, trail, *rest in self._db.execute(query, (number,)):
            score, seen, chosen, since_new, is_terminal, is_success, led, at, legal, shown = rest
            graph.cells[key] = Cell(
                key=key,
                trail=trails.get(trail),
                score=score,
                seen=seen,
                chosen=chosen,
                since_new=since_new,
                is_terminal=bool(is_terminal),
                is_success=bool(is_success),
                led=led,
                found=at,
                legal=legal,
                text=shown,
            )
        graph.start = graph.cells[start]
        query = "SELECT source, action, target FROM edges WHERE task = ?"
        for source, text, target in self._db.execute(query, (number,)):
            action: Action = json.loads(text)
            graph.edges.setdefault(source, {})[f"{action!r} {target}"] = (target, action)
            graph.cells[source].tried[as_text(action)] = None
        query = "SELECT step, source, target, cells, frontier, is_success FROM visits"
        for visit in self._db.execute(f"{query} WHERE task = ? ORDER BY rowid", (number,)):
            graph.visits.append(Visit._make((*visit[:-1], bool(visit[-1]))))
        return graph

    def tasks(self) -> list[str]:
        """Names of the tasks, in the order in which they came."""
        return [name for (name,) in self._db.execute("SELECT name FROM tasks ORDER BY task")]

    def counts(self) -> dict[str, int]:
        """How many cells, edges, trails, and cells that are successes there are."""
        query = (
            "SELECT (SELECT count(*) FROM cells), (SELECT count(*) FROM edges),"
            " (SELECT count(*) FROM trails), (SELECT count(*) FROM cells WHERE is_success)"
        )
        names = ("cells", "edges", "trails", "successes")
        return dict(zip(names, self._db.execute(query).fetchone(), strict=True))

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")
        except sqlite3.OperationalError as error:
            raise DataError(
                f"{self.path}: the archive could not be written ({error}); free some space, or let "
                f"other writers end (it waited up to {WAIT_S:g} s)"
            ) from error

    def _number(self, task: str, start: str) -> int:
        self._db.execute("INSERT OR IGNORE INTO tasks(name, start) VALUES(?, ?)", (task, start))
        query = "SELECT task, start FROM tasks WHERE name = ?"
        number, known = self._db.execute(query, (task,)).fetchone()
        if known != start:
            raise DataError(
                f"{self.path}: task {task!r} began in cell {known!r} before and begins in "
                f"{start!r} now: its env or its settings changed; use a new archive"
            )
        return int(number)

    def _row(self, number: int, cell: Cell) -> tuple[object, ...]:
        return (
            number,
            cell.key,
            self._written(cell.trail),
            cell.depth,
            cell.score,
            cell.seen,
            cell.chosen,
            cell.since_new,
            cell.is_terminal,
            cell.is_success,
            cell.led,
            cell.found,
            cell.legal,
            cell.text,
        )

    def _written(self, trail: Trail | None) -> int | None:
        """The row of a trail; those before it are written first, each once in a merge."""
        waiting: list[Trail] = []
        while trail is not None and trail not in self._trails:
            waiting.append(trail)
            trail = trail.before
        row = self._trails[trail] if trail is not None else None
        for step in reversed(waiting):
            row = self._db.execute(
                "INSERT INTO trails(before, action) VALUES(?, ?)", (row, json.dumps(step.action))
            ).lastrowid
            assert row is not None
            self._trails[step] = row
        return row

    def _trails_of(self, number: int) -> dict[int, Trail]:
        """The trails of a task's cells and those before them."""
        query = """
        WITH RECURSIVE used(trail) AS (
          SELECT trail FROM cells WHERE task = ? AND trail IS NOT NULL
          UNION SELECT before FROM trails JOIN used USING(trail) WHERE before IS NOT NULL)
        SELECT trail, before, action FROM trails JOIN used USING(trail) ORDER BY trail
        """
        found: dict[int, Trail] = {}
        for row, before, action in self._db.execute(query, (number,)):
            earlier = found[before] if before is not None else None
            length = earlier.length + 1 if earlier is not None else 1
            found[row] = Trail(earlier, json.loads(action), length)
        return found
