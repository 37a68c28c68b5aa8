"""The archive gives back what was merged, adds counts up, and is whole after a kill."""

import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agentrl.core.errors import DataError
from agentrl.core.graph import StateGraph
from agentrl.explore.archive import Archive


def small() -> StateGraph:
    graph = StateGraph("s")
    middle = graph.add(graph.start, "a", "m", reward=0.5).cell
    graph.add(middle, ["b", "c"], "t", is_terminal=True, is_success=True)
    middle.chosen, middle.since_new = 2, 1
    return graph


def test_a_graph_comes_back_as_it_was(tmp_path: Path) -> None:
    graph = small()
    with Archive(tmp_path / "a.sqlite") as archive:
        archive.merge("task", graph)
    with Archive(tmp_path / "a.sqlite") as archive:
        assert archive.tasks() == ["task"]
        assert archive.counts() == {"cells": 3, "edges": 2, "trails": 2, "successes": 1}
        again = archive.load("task")
        assert archive.load("other") is None
    assert again is not None
    for key, cell in graph.cells.items():
        copy = again.cells[key]
        names = ("score", "seen", "chosen", "since_new", "is_terminal", "is_success", "tried")
        assert [getattr(copy, n) for n in names] == [getattr(cell, n) for n in names]
        assert copy.actions() == cell.actions()
    assert again.way("s", "t") == ["a", ["b", "c"]]
    assert again.start is again.cells["s"]


def test_two_writers_counts_add_up_and_the_better_way_stays(tmp_path: Path) -> None:
    longer, shorter = StateGraph("s"), StateGraph("s")
    longer.add(longer.add(longer.start, "a", "m").cell, "b", "t")
    shorter.add(shorter.start, "c", "t")
    for first, second in ((longer, shorter), (shorter, longer)):
        path = tmp_path / f"{id(first)}.sqlite"
        with Archive(path) as one, Archive(path) as other:
            one.merge("task", first)
            other.merge("task", second)
            both = one.load("task")
        assert both is not None
        assert both.cells["t"].actions() == ["c"]
        assert both.cells["t"].seen == 2
        assert both.start.seen == 2
        assert both.way("m", "t") == ["b"]


def test_ways_of_two_tasks_do_not_mix(tmp_path: Path) -> None:
    with Archive(tmp_path / "a.sqlite") as archive:
        archive.merge("one", small())
        other = StateGraph("s")
        other.add(other.start, "z", "t")
        archive.merge("two", other)
        one, two = archive.load("one"), archive.load("two")
    assert one is not None
    assert two is not None
    assert one.cells["t"].actions() == ["a", ["b", "c"]]
    assert two.cells["t"].actions() == ["z"]


def test_a_task_that_begins_elsewhere_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    with Archive(tmp_path / "a.sqlite") as archive:
        archive.merge("task", small())
        with pytest.raises(DataError, match="began in cell 's' before and begins in 'x' now"):
            archive.merge("task", StateGraph("x"))
        assert archive.counts()["cells"] == 3


def test_what_is_no_archive_or_of_another_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("not a database, but long enough to be looked at as one" * 99)
    with pytest.raises(DataError, match="no archive can be opened here"):
        Archive(tmp_path / "text")
    with sqlite3.connect(tmp_path / "old") as db:
        db.execute("PRAGMA user_version=99")
    with pytest.raises(DataError, match="expected an archive of version 2, and this is one of 99"):
        Archive(tmp_path / "old")


WRITER = """
import sys
from pathlib import Path
from agentrl.core.graph import StateGraph
from agentrl.explore.archive import Archive
archive = Archive(Path(sys.argv[1]))
for number in range(10**6):
    graph = StateGraph("0")
    cell = graph.start
    for k in range(1, 50):
        cell = graph.add(cell, "on", f"{k}").cell
    archive.merge(f"{sys.argv[2]}/{number}", graph)
    if number == 3:
        print("going", flush=True)
"""


def test_several_writers_that_are_killed_leave_whole_graphs(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    Archive(path).close()
    command = [sys.executable, "-c", WRITER, str(path)]
    writers = [
        subprocess.Popen([*command, name], stdout=subprocess.PIPE, text=True) for name in "ab"
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "going\n"
    time.sleep(0.2)
    for writer in writers:
        writer.send_signal(signal.SIGKILL)
        writer.communicate(timeout=20)
    with Archive(path) as archive:
        names = archive.tasks()
        assert {name[0] for name in names} == {"a", "b"}
        assert archive.counts()["cells"] == 50 * len(names)
        last = archive.load(names[-1])
        archive.merge("after", small())
    assert last is not None
    assert last.cells["49"].actions() == ["on"] * 49
