"""Exploring from an archive: what is found, what it costs, and what an env may do to it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from random import Random

import pytest

from agentrl.core.errors import ConfigError
from agentrl.core.protocols import CellSelector, Env
from agentrl.core.types import Action, Step, Task
from agentrl.envs.babyai import BabyAI
from agentrl.envs.gym import Gymnasium
from agentrl.explore.archive import Archive
from agentrl.explore.go_explore import GoExplore
from agentrl.explore.proposers.table import Table
from agentrl.explore.selectors.frontier import Frontier
from agentrl.explore.selectors.latent import Latent
from agentrl.explore.selectors.ucb import Ucb
from agentrl.explore.tables import append_entry
from support.locks import TASKS, Lock, found


def test_a_lock_is_opened_by_replay_and_all_steps_are_counted(tmp_path: Path) -> None:
    results = found(GoExplore(budget=2_000, steps=3), Lock(), tmp_path)
    for task, result in zip(TASKS, results, strict=True):
        rng = Random(task.seed)
        assert result.ways[0] == tuple(rng.choice("LR") for _ in range(8))
        assert result.first == result.steps <= 2_000
        assert 0 < result.replayed < result.steps
        assert (result.cells, result.diverged, result.failure) == (9, 0, None)
    with Archive(tmp_path / "archive.sqlite") as archive:
        assert archive.tasks() == [task.id for task in TASKS]
        graph = archive.load("lock/1")
    assert graph is not None
    assert graph.way("0", "8") == list(results[1].ways[0])


def test_the_same_seed_finds_the_same(tmp_path: Path) -> None:
    how = GoExplore(budget=500, steps=3)
    assert found(how, Lock(), tmp_path / "a") == found(how, Lock(), tmp_path / "b")
    alone = found(how, Lock(), tmp_path / "c", TASKS[1:2])
    assert alone == found(how, Lock(), tmp_path / "d")[1:2], "tasks do not touch each other"


def test_the_budget_is_kept_and_what_was_seen_stays(tmp_path: Path) -> None:
    [result] = found(GoExplore(budget=40, steps=3), Lock(length=30), tmp_path, TASKS[:1])
    assert result.ways == ()
    assert result.first is None
    assert 40 <= result.steps <= 40 + 30
    assert 1 < result.cells < 30


def test_after_the_first_success_it_may_look_for_shorter_ways(tmp_path: Path) -> None:
    how = GoExplore(budget=5_000, steps=3, more=200)
    [result] = found(how, Lock(), tmp_path, TASKS[:1])
    assert result.first is not None
    assert result.first + 200 <= result.steps <= result.first + 200 + 11


def test_ways_that_lead_elsewhere_are_counted_and_given_up(tmp_path: Path) -> None:
    [result] = found(GoExplore(budget=3_000, steps=3), Lock(noise=0.3), tmp_path, TASKS[:1])
    assert result.diverged > 0
    assert result.failure is None


def test_an_env_that_breaks_costs_its_task_and_no_other(tmp_path: Path) -> None:
    results = found(GoExplore(budget=30, steps=3), Lock(length=30, breaks_at=12), tmp_path)
    assert all("jammed" in (result.failure or "") for result in results), "each env is a new one"
    assert [result.ways for result in results] == [()] * 3
    assert all(result.cells > 1 for result in results)
    with Archive(tmp_path / "archive.sqlite") as archive:
        assert len(archive.tasks()) == 3


def test_snapshots_cost_no_steps_and_find_a_way_through_a_locked_door(tmp_path: Path) -> None:
    env = BabyAI(level="DoorKey-5x5", cap=24)
    tasks = env.tasks("train")[:3]
    results = found(GoExplore(), env, tmp_path, tasks)
    for task, result in zip(tasks, results, strict=True):
        assert result.replayed == 0
        assert len(result.ways[0]) <= 24
        assert played(env, task, result.ways[0])


def played(env: Env, task: Task, way: Sequence[Action]) -> bool:
    env.reset(task)
    for action in way:
        step = env.step(action)
    assert isinstance(step, Step)
    return bool(step.info.get("success"))


def test_where_chance_decides_the_way_that_was_taken_leads_there_again(tmp_path: Path) -> None:
    env = Gymnasium(id="FrozenLake-v1", kwargs={"is_slippery": True}, split_by="seed")
    tasks = env.tasks("train")[:6]
    results = found(GoExplore(budget=2_000), env, tmp_path, tasks)
    pairs = [(task, one.ways) for task, one in zip(tasks, results, strict=True) if one.ways]
    assert len(pairs) >= 4
    assert any(len(ways) == 2 for _, ways in pairs)
    assert all(played(env, task, ways[-1]) for task, ways in pairs)


def test_an_env_without_what_it_takes_is_refused() -> None:
    class Blind(Lock):
        legal_actions = None  # type: ignore[assignment]

    with pytest.raises(ConfigError, match=r"env Blind has no legal_actions\(\)"):
        GoExplore().check(Blind())
    with pytest.raises(ConfigError, match=r"has no restore\(\), snapshot\(\)"):
        GoExplore(restore="snapshot").check(Lock())


def test_visits_tell_what_was_known_when_and_cells_what_was_shown(tmp_path: Path) -> None:
    [result] = found(GoExplore(budget=2_000, steps=3), Lock(), tmp_path, TASKS[:1])
    with Archive(tmp_path / "archive.sqlite") as archive:
        graph = archive.load(TASKS[0].id)
    assert graph is not None
    steps = [visit.step for visit in graph.visits]
    assert steps == sorted(steps)
    assert steps[-1] == result.steps
    assert [v.is_success for v in graph.visits] == [False] * (len(steps) - 1) + [True]
    for visit in graph.visits:
        assert visit.cells == sum(cell.found <= visit.step for cell in graph.cells.values())
        assert 0 <= visit.frontier <= visit.cells
    assert graph.visits[-1].frontier == sum(cell.is_frontier for cell in graph.cells.values())
    assert {cell.text for cell in graph.cells.values()} == {"a lock", "click"}
    assert sum(cell.led for cell in graph.cells.values()) >= 3


@pytest.mark.parametrize(
    "selector", [Frontier(order="nearest"), Frontier(within=2), Ucb(), Latent(p=0.3)]
)
def test_each_selector_opens_the_lock(selector: CellSelector, tmp_path: Path) -> None:
    results = found(GoExplore(budget=2_000, steps=3, selector=selector), Lock(), tmp_path)
    assert all(result.ways for result in results)


def test_a_guide_is_asked_for_actions_and_chance_answers_where_it_does_not(tmp_path: Path) -> None:
    path = tmp_path / "table.jsonl"
    rng = Random(TASKS[1].seed)
    secret = [rng.choice("LR") for _ in range(30)]
    for key, action in enumerate(secret):
        entry = {"kind": "action", "task": TASKS[1].id, "key": str(key), "answer": action}
        append_entry(path, entry, {"by": "oracle"})
    how = GoExplore(budget=60, steps=30, guide=Table(path=path))
    blind, led = found(how, Lock(length=30), tmp_path, TASKS[:2])
    assert (led.first, led.ways) == (30, (tuple(secret),))
    assert led.metrics == {"proposer/asked": 30.0}
    assert blind.first is None
    assert blind.metrics["proposer/failed"] == blind.metrics["proposer/random"] > 0
