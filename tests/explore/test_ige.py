"""Intelligent Go-Explore's loop: three duties, and what becomes of bad answers."""

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from agentrl.core.exploring import Found, Question
from agentrl.core.types import Task
from agentrl.envs.game24 import Game24
from agentrl.explore.archive import Archive
from agentrl.explore.go_explore import GoExplore
from agentrl.explore.ige import IntelligentGoExplore
from agentrl.explore.proposers.table import Table
from agentrl.explore.selectors.llm import Asked
from agentrl.rollout.runners import runner_for
from support.locks import TASKS, Lock
from support.locks import found as explored
from support.proposers import Scripted

PUZZLE = Task(id="puzzle", seed=0, data={"numbers": [4, 4, 6, 8]})


def play(how: IntelligentGoExplore, folder: Path, env: Game24 | None = None) -> Found:
    env = env or Game24()
    task = [PUZZLE]
    [result] = asyncio.run(
        how.find(task, env, runner_for(env), folder, seed=1, say=lambda text: None)
    )
    return result


def led(speak: Any, **settings: Any) -> tuple[IntelligentGoExplore, Scripted]:
    proposer = Scripted(speak)
    return IntelligentGoExplore(
        proposer=proposer, **{"budget": 700, "steps": 3, **settings}
    ), proposer


def test_an_oracle_table_solves_the_known_puzzle_in_three_operations(tmp_path: Path) -> None:
    env = Game24()
    env.reset(PUZZLE)
    lines: list[dict[str, object]] = [{"format": 1}]
    step = None
    while step is None or not step.terminated:
        action = env.expert_action()
        lines.append({"kind": "action", "key": env.state_key(), "answer": action})
        step = env.step(action)
    assert len(lines) == 4
    path = tmp_path / "oracle.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)) + "\n")
    how = IntelligentGoExplore(proposer=Table(path=path), steps=3, budget=700, keeps=False)
    result = play(how, tmp_path)
    assert (result.first, result.steps) == (3, 3)
    assert result.metrics == {"proposer/asked": 3.0}


@pytest.mark.parametrize("said", ["{not json", '{"choice": 99}', "", "no idea", '{"choice": null}'])
def test_answers_that_are_none_become_random_ones_and_the_budget_is_kept(
    tmp_path: Path, said: str
) -> None:
    how, _ = led(lambda question: said, budget=200)
    result = play(how, tmp_path)
    assert result.steps <= 200
    assert result.first is not None or result.steps == 200
    assert result.metrics["proposer/unread"] == result.metrics["proposer/asked"]
    assert result.metrics["proposer/random"] > 0
    assert "proposer/banned" not in result.metrics, "an answer that is none bans nothing"


def test_a_banned_state_is_not_asked_about_again_and_never_returned_to(tmp_path: Path) -> None:
    def speak(question: Question) -> str:
        return '{"choice": 2}' if question.kind == "keep" else '{"choice": 1}'

    how, proposer = led(speak, budget=60)
    result = play(how, tmp_path)
    about = Counter(q.key for q in proposer.heard if q.kind == "keep")
    assert set(about.values()) == {1}
    assert result.metrics["proposer/banned"] == len(about)
    with Archive(tmp_path / "archive.sqlite") as archive:
        graph = archive.load("puzzle")
    assert graph is not None
    assert {visit.source for visit in graph.visits} == {"24=4,4,6,8"}
    assert result.cells == len(graph)


def test_where_everything_was_tried_all_of_it_may_be_tried_again(tmp_path: Path) -> None:
    def speak(question: Question) -> str:
        return '{"choice": 2}' if question.kind == "keep" else '{"choice": 1}'

    how, _ = led(speak, budget=80, steps=1)
    result = play(how, tmp_path, Game24(rules="restricted"))
    env = Game24()
    env.reset(PUZZLE)
    options = len(env.legal_actions())
    assert result.steps == 80
    assert result.metrics["proposer/refills"] == (80 - 1) // options


def test_every_duty_is_asked_with_options_in_words_and_the_rules(tmp_path: Path) -> None:
    how, proposer = led(lambda question: '{"choice": 1}', budget=30)
    play(how, tmp_path)
    kinds = {q.kind: q for q in proposer.heard}
    assert set(kinds) == {"cell", "action", "keep"}
    assert "Make 24 from four numbers" in kinds["cell"].system
    assert '{"choice": N}' in kinds["cell"].system
    assert "1. make 24 from" in kinds["cell"].text
    assert kinds["action"].options[0] in kinds["action"].text
    assert kinds["action"].shown.startswith("make 24 from")
    assert "A new state: make 24 from" in kinds["keep"].text
    assert len(proposer.heard[-1].history) == 10


def test_duties_may_be_left_to_counts_and_chance(tmp_path: Path) -> None:
    how, proposer = led(
        lambda question: "1", chooses_state=False, chooses_action=False, keeps=False, budget=50
    )
    result = play(how, tmp_path)
    assert proposer.heard == []
    assert result.steps <= 50


def test_the_same_seed_asks_the_same(tmp_path: Path) -> None:
    def once(folder: Path) -> tuple[Found, list[str]]:
        how, proposer = led(lambda question: str(1 + len(question.text) % 3), budget=80)
        return play(how, folder), [q.text for q in proposer.heard]

    assert once(tmp_path / "a") == once(tmp_path / "b")


def test_a_selector_that_asks_opens_the_lock(tmp_path: Path) -> None:
    proposer = Scripted(lambda question: f'{{"choice": {len(question.options)}}}')
    how = GoExplore(budget=3_000, steps=3, selector=Asked(proposer=proposer))
    assert how.asked() == [proposer]
    results = explored(how, Lock(), tmp_path, TASKS)
    assert all(result.ways for result in results)
    assert {q.kind for q in proposer.heard} == {"cell"}


def test_success_is_seen_by_the_transition_and_not_by_the_proposer(tmp_path: Path) -> None:
    known: dict[str, str] = {}

    def speak(question: Question) -> str:
        is_known = question.kind == "action" and question.key in known
        index = question.options.index(known[question.key]) + 1 if is_known else 1
        return json.dumps({"choice": index, "thought": "this surely fails"})

    env = Game24()
    env.reset(PUZZLE)
    way: list[str] = []
    step = None
    while step is None or not step.terminated:
        known[env.state_key()] = env.expert_action()
        way.append(env.expert_action())
        step = env.step(way[-1])
    result = play(led(speak)[0], tmp_path)
    assert result.ways[0] == tuple(way)
    assert result.first == 3
