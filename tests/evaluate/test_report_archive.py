"""The report tells what exploring found: graphs by distance, growth, and when tasks were solved."""

import asyncio
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from agentrl.core.errors import DataError
from agentrl.core.graph import StateGraph, Visit
from agentrl.envs.browser.chromium import NAMES
from agentrl.evaluate.report import write_report
from agentrl.evaluate.report_archive import first_success, pack_archive, success_way
from agentrl.explore.archive import Archive
from agentrl.explore.go_explore import GoExplore
from agentrl.rollout.runners import runner_for
from support.locks import TASKS, Lock

CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)


def explored(folder: Path) -> Path:
    """A run's folder in which three locks were explored, one of them in vain."""
    env = Lock()
    how = GoExplore(budget=250, steps=3, more=30)
    found = asyncio.run(
        how.find(TASKS, env, runner_for(env), folder, seed=2, say=lambda text: None)
    )
    told = {"solved": sum(bool(one.ways) for one in found), "first": [one.first for one in found]}
    told |= {"env_steps": sum(one.steps for one in found), "metrics": {"proposer/asked": 7.0}}
    (folder / "explore.json").write_text(json.dumps(told))
    return folder


def test_a_folder_without_an_archive_has_nothing_to_show(tmp_path: Path) -> None:
    assert pack_archive(tmp_path) is None


def test_graphs_are_drawn_by_distance_with_the_way_to_the_success(tmp_path: Path) -> None:
    packed = json.loads(json.dumps(pack_archive(explored(tmp_path))))
    told, counts = packed["told"], packed["counts"]
    assert counts["tasks"] == 3
    assert packed["solved"]["y"][-1] == pytest.approx(told["solved"] / 3)
    assert packed["solved"]["x"][1:] == sorted(at for at in told["first"] if at is not None)
    assert 1 <= len(packed["graphs"]) <= 3
    for graph in packed["graphs"]:
        cells = graph["cells"]
        assert len(cells) == graph["of"]
        assert all(0 < cell[1] < 1 for cell in cells)
        assert len({(cell[0], cell[1]) for cell in cells}) == len(cells), "none upon another"
        assert all(cells[b][0] == cells[a][0] + 1 for a, b in graph["edges"])
        assert graph["growth"]["cells"][-1] == graph["of"]
        if graph["first"] is not None:
            way = [cells[place] for place in graph["way"]]
            assert [cell[0] for cell in way] == list(range(9))
            assert way[-1][5] == "success"


def test_the_shortest_way_is_found_through_all_that_was_seen() -> None:
    graph = StateGraph("s")
    a = graph.add(graph.start, "1", "a").cell
    b = graph.add(a, "2", "b").cell
    graph.add(b, "3", "goal", is_terminal=True, is_success=True)
    graph.add(graph.start, "4", "b")
    assert success_way(graph) == ["s", "b", "goal"]
    assert success_way(StateGraph("s")) == []
    graph.visits += [Visit(3, "s", "b", 3, 1, False), Visit(9, "s", "goal", 4, 1, True)]
    assert first_success(graph) == 9


def test_many_cells_are_cut_down_to_those_that_matter(tmp_path: Path) -> None:
    graph = StateGraph("s")
    cell = graph.start
    for n in range(40):
        for m in range(20):
            graph.add(cell, f"side {m}", f"{n}/{m}")
        cell = graph.add(cell, "on", f"way {n}", is_success=n == 39).cell
    with Archive(tmp_path / "archive.sqlite") as archive:
        archive.merge("t", graph)
    [drawn] = json.loads(json.dumps(pack_archive(tmp_path)))["graphs"]
    assert (drawn["of"], len(drawn["cells"]), len(drawn["way"])) == (841, 300, 41)


def test_what_is_no_archive_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "archive.sqlite").write_text("no database, but long enough to be looked at" * 99)
    with pytest.raises(DataError, match="no archive can be opened here"):
        pack_archive(tmp_path)


@pytest.mark.browser
@pytest.mark.timeout(90)
def test_a_browser_draws_the_graphs(tmp_path: Path) -> None:
    if CHROMIUM is None:
        pytest.skip("no chromium is installed")
    page = write_report(explored(tmp_path))
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", page.as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=80).stdout
    graphs = json.loads(json.dumps(pack_archive(tmp_path)))["graphs"]
    assert shown.count('<svg class="graph"') == len(graphs)
    assert shown.count('class="cell ') == sum(len(graph["cells"]) for graph in graphs)
    assert shown.count('class="way"') == sum(max(len(g["way"]) - 1, 0) for g in graphs)
    assert "proposer/asked" in shown
