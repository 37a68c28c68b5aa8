"""Beginning in cells of an archive: on the way to a success, from its end to its start."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from agentrl.core.errors import ConfigError
from agentrl.core.graph import StateGraph
from agentrl.core.types import Group, Json, Start, Task
from agentrl.explore.archive import Archive
from agentrl.explore.starts.archive import FromArchive
from agentrl.explore.starts.backward import Backward
from support.walks import walk

CHAIN = Task(id="chain", seed=0)
LOST = Task(id="lost", seed=1)
WAY = ("a", "b", "c", "d", "e", "f")


def kept(folder: Path, lengths: Sequence[tuple[Task, int, bool]]) -> Path:
    """An archive of chains, each with as many actions, and whether its end is a success."""
    with Archive(folder / "archive.sqlite") as archive:
        for task, length, solved in lengths:
            graph = StateGraph(f"{task.id} 0")
            cell = graph.start
            for k in range(length):
                is_end = k == length - 1
                cell = graph.add(
                    cell,
                    WAY[k],
                    f"{task.id} {k + 1}",
                    is_terminal=is_end,
                    is_success=is_end and solved,
                ).cell
            archive.merge(task.id, graph)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return kept(tmp_path, [(CHAIN, 6, True), (LOST, 3, False)])


def played(task: Task, start: Start, wins: int, of: int = 5) -> Group:
    episodes = [replace(walk("x", reward=float(i < wins)), start=start) for i in range(of)]
    return Group(task=task, start=start, trajectories=tuple(episodes))


def walked(starts: Backward, steps: int, wins: int) -> list[int]:
    """Where groups begin, step after step, when each is won so often."""
    found = []
    for _ in range(steps):
        start = starts.sample(CHAIN, Random(0))
        found.append(len(start.actions))
        starts.observe([played(CHAIN, start, wins)], 0.0)
    return found


@pytest.mark.parametrize("together", [True, False])
def test_a_perfect_policy_is_led_from_the_end_to_the_start_of_a_chain(
    folder: Path, together: bool
) -> None:
    starts = Backward(whole=0.0, together=together)
    starts.open(folder)
    assert walked(starts, 8, wins=5) == [5, 4, 3, 2, 1, 0, 0, 0]
    assert starts.sample(CHAIN, Random(0)) == Start()
    assert {name: m.mean for name, m in starts.metrics().items()} == {
        "start/back": 6.0,
        "start/arrived": 1.0,
    }


@pytest.mark.parametrize("together", [True, False])
def test_a_failing_policy_never_moves_and_the_threshold_decides(
    folder: Path, together: bool
) -> None:
    starts = Backward(whole=0.0, together=together, threshold=0.4)
    starts.open(folder)
    assert walked(starts, 9, wins=0) == [5] * 9
    assert walked(starts, 3, wins=1) == [5] * 3
    assert walked(starts, 3, wins=2) == [5, 4, 3]


def test_the_way_is_the_one_that_was_found(folder: Path) -> None:
    starts = Backward(whole=0.0, back=2)
    starts.open(folder)
    assert starts.sample(CHAIN, Random(0)).actions == WAY[:4]
    assert starts.sample(LOST, Random(0)) == Start()
    assert starts.sample(Task(id="new", seed=3), Random(0)) == Start()


def test_groups_that_began_elsewhere_move_nothing(folder: Path) -> None:
    starts = Backward()
    starts.open(folder)
    starts.observe([played(CHAIN, Start(), 5), played(LOST, Start(), 5)], 0.0)
    assert len(starts.at(CHAIN.id).actions) == 5


def test_a_share_of_groups_begins_at_the_start_all_the_while(folder: Path) -> None:
    starts = Backward(whole=0.3)
    starts.open(folder)
    drawn = [starts.sample(CHAIN, Random(seed)) for seed in range(2000)]
    assert sum(start == Start() for start in drawn) / 2000 == pytest.approx(0.3, abs=0.04)


def test_the_probability_of_a_cell_falls_to_0(folder: Path) -> None:
    starts = FromArchive(share=0.5, anneal=0.5)
    starts.open(folder)

    def share() -> float:
        drawn = [starts.sample(CHAIN, Random(seed)) for seed in range(2000)]
        return sum(bool(start.actions) for start in drawn) / 2000

    assert share() == pytest.approx(0.5, abs=0.04)
    starts.observe([], 0.25)
    assert share() == pytest.approx(0.25, abs=0.04)
    starts.observe([], 0.5)
    assert share() == 0.0


def test_a_cell_lies_on_the_way_and_never_at_its_end(folder: Path) -> None:
    starts = FromArchive(share=1.0)
    starts.open(folder)
    ways = {starts.sample(CHAIN, Random(seed)).actions for seed in range(200)}
    assert ways == {WAY[:k] for k in range(1, 6)}


def test_where_nothing_was_solved_any_cell_will_do(folder: Path) -> None:
    starts = FromArchive(share=1.0)
    starts.open(folder)
    drawn = [starts.sample(LOST, Random(seed)) for seed in range(100)]
    assert {start.cell for start in drawn} == {"lost 1", "lost 2"}
    assert all(start.actions == WAY[: int(str(start.cell)[-1])] for start in drawn)


def test_their_states_survive_as_json(folder: Path) -> None:
    for together in (True, False):
        starts, twin = Backward(together=together), Backward(together=together)
        starts.open(folder)
        twin.open(folder)
        walked(starts, 9, wins=5)
        twin.restore(json.loads(json.dumps(starts.state())))
        assert twin.at(CHAIN.id) == starts.at(CHAIN.id) == Start()
    cells, other = FromArchive(), FromArchive()
    cells.observe([], 0.25)
    other.restore(json.loads(json.dumps(cells.state())))
    assert other.probability == cells.probability == 0.25


@pytest.mark.parametrize("state", [None, {"done": "x"}, {"back": 1}])
def test_another_state_is_refused(state: Json) -> None:
    for starts in (Backward(), FromArchive()):
        with pytest.raises(ConfigError, match="start: expected the state of"):
            starts.restore(state)


def test_without_an_archive_or_a_way_a_run_does_not_begin(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no archive at .*set explore=go_explore, or start"):
        Backward().open(tmp_path)
    kept(tmp_path, [(LOST, 3, False)])
    with pytest.raises(ConfigError, match=r"no task of .* was solved"):
        Backward().open(tmp_path)
