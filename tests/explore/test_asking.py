"""What is read from answers, what an answer that is none becomes, and what is counted."""

import asyncio
import json
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrl.core.errors import BudgetError, ConfigError, ProposerError
from agentrl.core.exploring import Question
from agentrl.core.types import Task
from agentrl.explore.asking import Asking, parse_choice, parse_list
from agentrl.explore.goals import goals_of, written
from agentrl.explore.proposers.noisy import Noisy
from agentrl.explore.proposers.table import Table
from agentrl.explore.tables import digest_of
from support.proposers import Scripted, asked

OPTIONS = ("calc 1 + 1", "calc 2 + 2", "calc 3 + 3")


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ('{"choice": 2}', 1),
        ('Let me think. {"choice": 1} No: {"thought": "better", "choice": 3}', 2),
        (" 3. ", 2),
        ('{"choice": 4}', None),
        ('{"choice": 0}', None),
        ('{"choice": -1}', None),
        ('{"choice": true}', None),
        ('{"choice": 2.0}', None),
        ('{"choice": "2"}', None),
        ("{'choice': 2}", None),
        ("I would take option 2, or 3", None),
        ("", None),
        ("9" * 10_000, None),
        ("{" * 20_000, None),
        ('{"choice": 1' + "0" * 5_000 + "}", None),
    ],
)
def test_a_choice_is_a_json_object_or_a_bare_number_in_range(text: str, choice: int | None) -> None:
    assert parse_choice(text, 3) == choice


@given(st.text(max_size=200), st.integers(1, 50))
def test_whatever_is_said_the_choice_is_in_range_or_none(text: str, n: int) -> None:
    choice = parse_choice(text, n)
    assert choice is None or 0 <= choice < n


def test_a_list_has_dashes_before_all_its_lines() -> None:
    assert parse_list("- Chop tree\n-  eat plant \n\n- chop tree") == ["chop tree", "eat plant"]
    assert parse_list("Here are some:\n- chop tree") is None
    assert parse_list("") == []


def test_an_answer_that_makes_no_choice_becomes_a_random_one_and_is_counted() -> None:
    said = iter(['{"choice": 2}', "well", '{"choice": 9}', "ask", "budget"])

    def speak(question: Question) -> str:
        word = next(said)
        if word == "ask":
            raise ProposerError("nobody is there")
        if word == "budget":
            raise BudgetError("all is spent")
        return word

    asking = Asking(proposer=Scripted(speak), task=Task(id="t", seed=0), rng=Random(1))
    chosen = [asyncio.run(asking.choose("action", "k", "which?", OPTIONS)) for _ in range(5)]
    assert chosen[0] == 1
    assert all(0 <= choice < 3 for choice in chosen)
    assert asking.metrics() == {
        "proposer/asked": 5.0,
        "proposer/failed": 1.0,
        "proposer/random": 4.0,
        "proposer/unpaid": 1.0,
        "proposer/unread": 2.0,
    }
    assert asyncio.run(asking.choose("action", "k", "which?", OPTIONS[:1])) == 0
    assert asking.counts["asked"] == 5, "one option is no question"


def test_the_last_questions_are_shown_with_their_answers() -> None:
    heard: list[Question] = []

    def speak(question: Question) -> str:
        heard.append(question)
        return str(len(heard))

    asking = Asking(proposer=Scripted(speak), task=Task(id="t", seed=0), rng=Random(1), remembers=2)
    for text in "abcd":
        asyncio.run(asking.answer("free", "k", text))
    assert [m.text for m in heard[-1].history] == ["b", "2", "c", "3"]
    assert heard[0].history == ()


def table(path: Path, *entries: dict[str, str]) -> Path:
    path.write_text("\n".join(json.dumps(entry) for entry in [{"format": 1}, *entries]) + "\n")
    return path


def test_a_table_answers_by_question_then_by_place_of_its_task_first(tmp_path: Path) -> None:
    exact = asked("action", "a", OPTIONS, text="this one?")
    entries = [
        {"digest": digest_of(exact), "answer": "calc 3 + 3"},
        {"kind": "action", "key": "a", "answer": "calc 1 + 1"},
        {"kind": "action", "task": "t", "key": "b", "answer": '{"choice": 2}'},
    ]
    proposer = Table(path=table(tmp_path / "t.jsonl", *entries))
    questions = [exact, asked("action", "a", OPTIONS), asked("action", "b", OPTIONS)]
    answers = [asyncio.run(proposer.answer(question, 0)) for question in questions]
    assert [parse_choice(answer, 3) for answer in answers] == [2, 0, 1]
    with pytest.raises(ProposerError, match=r"has no answer to 'action' at 'z' of task t"):
        asyncio.run(proposer.answer(asked("action", "z", OPTIONS), 0))
    assert proposer.misses == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"format": 9}\n', "expected a table of format 1, got 9"),
        ('{"kind": "action", "answer": "x"}\n', "a digest or a kind with task or key"),
        ('{"kind": "action", "key": 3, "answer": "x"}\n', "expected texts under"),
        ("[]\n", "expected texts under"),
        ("{\n{}\n", "line 1: expected JSON"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "t.jsonl").write_text(text)
    with pytest.raises(ConfigError, match=message):
        asyncio.run(Table(path=tmp_path / "t.jsonl").start(tmp_path, None))
    with pytest.raises(ConfigError, match="cannot read the table"):
        asyncio.run(Table(path=tmp_path / "none.jsonl").start(tmp_path, None))


def test_a_line_that_was_cut_off_is_passed_over(tmp_path: Path) -> None:
    path = table(tmp_path / "t.jsonl", {"kind": "action", "key": "a", "answer": "1"})
    path.write_text(path.read_text() + '{"kind": "act')
    assert asyncio.run(Table(path=path).answer(asked("action", "a", OPTIONS), 0)) == "1"


@pytest.mark.parametrize("right", [0.0, 0.7, 1.0])
def test_a_noisy_proposer_is_right_as_often_as_it_says_and_always_wrong_alike(right: float) -> None:
    def play() -> list[int | None]:
        noisy = Noisy(proposer=Scripted(lambda question: '{"choice": 2}'), right=right, seed=3)
        keys = map(str, range(1_000))
        answers = [asyncio.run(noisy.answer(asked("action", k, OPTIONS), 0)) for k in keys]
        assert noisy.replaced == sum(parse_choice(answer, 3) != 1 for answer in answers)
        return [parse_choice(answer, 3) for answer in answers]

    chosen = play()
    assert chosen == play()
    assert chosen.count(1) / 1_000 == pytest.approx(right, abs=0.04)
    assert None not in chosen
    if right < 1:
        assert chosen.count(0) / (1_000 - chosen.count(1)) == pytest.approx(0.5, abs=0.08)


def test_a_noisy_teacher_moves_places_and_mixes_things_up() -> None:
    goals = [
        {"kind": "position", "text": "go to 3 4", "predicate": "at 3 4"},
        {"kind": "object", "text": "get the key", "predicate": "carrying red key"},
        {"kind": "object", "text": "open the door", "predicate": "red door open"},
    ]
    noisy = Noisy(proposer=Scripted(lambda question: json.dumps(goals)), right=0.0, off=2.0)
    distances, things = [], []
    for n in range(300):
        said = asyncio.run(noisy.answer(asked("subgoals", str(n), ()), 0))
        first, second, _ = goals_of(said)
        x, y = map(int, str(first.predicate).split()[1:])
        distances.append(abs(x - 3) + abs(y - 4))
        things.append(second.predicate)
    assert min(distances) == 1
    assert sum(distances) / 300 == pytest.approx(2.05, abs=0.25)
    assert set(things) == {"at 3 4", "red door open"}


def test_goals_are_read_from_json_or_dashes_and_nothing_else() -> None:
    assert [goal.text for goal in goals_of("- get key\n- open door")] == ["get key", "open door"]
    said = '["a", {"predicate": "at 1 2", "kind": "position", "budget": 3}, 7, {"text": ""}, {}]'
    read = goals_of(said)
    assert [goal.text for goal in read] == ["a", "at 1 2"]
    assert (read[1].predicate, read[1].kind, read[1].budget) == ("at 1 2", "position", 3)
    assert goals_of(written(read)) == read
    for bad in ("", "[", "no list", "{}", "[" * 5_000, '[{"text": "x", "kind": "evil"}]'):
        assert goals_of(bad) == []
    assert len(goals_of(json.dumps(["x" * 999] * 9))[0].text) == 200
    assert len(goals_of(json.dumps([str(n) for n in range(999)]))) == 50
