"""Countdown in one message: answers are computed, never evaluated; traces hold line by line."""

import ast
import pickle
from collections import Counter
from fractions import Fraction
from random import Random

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from agentrl.core.errors import ConfigError
from agentrl.core.types import Split, Step, Task
from agentrl.envs.countdown import Countdown, solve
from agentrl.envs.countdown.written import express, right_lines, search, shortest, value_of

SPLITS: tuple[Split, ...] = ("train", "dev", "test")


def dealt(target: int, *numbers: int, **settings: object) -> Countdown:
    env = Countdown(**{"format": "answer", **settings})  # type: ignore[arg-type]
    env.reset(Task(id="t", seed=0, data={"numbers": list(numbers), "target": target}))
    return env


def said(action: object, target: int = 24, *numbers: int, **settings: object) -> Step:
    return dealt(target, *(numbers or (8, 5, 2)), **settings).step(action)  # type: ignore[arg-type]


def worth(text: str) -> Fraction:
    """An expression's value by Python's own parser: written apart."""

    def of(node: ast.AST) -> Fraction:
        if isinstance(node, ast.Constant):
            return Fraction(str(node.value))
        assert isinstance(node, ast.BinOp)
        left, right = of(node.left), of(node.right)
        match node.op:
            case ast.Add():
                return left + right
            case ast.Sub():
                return left - right
            case ast.Mult():
                return left * right
            case _:
                return left / right

    return of(ast.parse(text.strip(), mode="eval").body)


# --- answers --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer", ["8 * ( 5 - 2 )", "8*(5-2)", "((8)) * (5 - 2)", "(5-2)*8", "8 * 5 - 8 * 2"]
)
def test_an_expression_may_be_written_in_several_ways(answer: str) -> None:
    step = said(f"  answer {answer} \n", 24, 8, 8, 5, 2)
    assert (step.reward, step.terminated, step.info["success"]) == (1.0, True, True)
    assert step.observation == "that is 24"


def test_numbers_and_operations_may_be_left_over() -> None:
    assert said("answer 8 + 5", 13, 8, 5, 2).reward == 1.0


def test_what_lies_between_may_be_negative_or_a_fraction() -> None:
    assert said("answer 2 - 5 + 8", 5).reward == 1.0
    assert said("answer 8 * ( 5 / 2 )", 20).reward == 1.0
    assert said("answer 5 / 2", 24).observation == "that is 5/2"


@pytest.mark.parametrize(
    ("action", "reason"),
    [
        ("", "say an expression"),
        ("8 * ( 5 - 2 )", "say an expression"),
        ("calc 8 - 5", "say an expression"),
        ("answer", "say an expression"),
        ("answer 8 *", "say an expression"),
        ("answer * 8", "say an expression"),
        ("answer 8 5", "say an expression"),
        ("answer -8", "say an expression"),
        ("answer 8 ** 2", "say an expression"),
        ("answer 8 // 2", "say an expression"),
        ("answer ( 8", "say an expression"),
        ("answer 8 )", "say an expression"),
        ("answer ( )", "say an expression"),
        ("answer 8 = 8", "say an expression"),
        ("answer 8.0", "say an expression"),
        ("answer ٨", "say an expression"),
        ("answer __import__('os')", "say an expression"),
        ("answer " + "(" * 100 + "8" + ")" * 100, "say an expression"),
        ("answer " + "9" * 100, "say an expression"),
        ("answer " + "(" * 1_000_000, "say an expression"),
        ("answer " + "8 + " * 200 + "8", "an answer has at most 500 characters"),
        ("x" * 1_000_000, "say an expression"),
        ("\n" * 1_000_000, "say an expression"),
        ("answer 8 \u202e🙂\x00", "say an expression"),
        (["answer 8 * ( 5 - 2 )"], "say an expression"),
        ("answer 8 * 3", "there is no 3"),
        ("answer 8 + 8 + 8", "there is no other 8"),
        ("answer 8 / ( 5 - 5 )", "it divides by 0"),
    ],
)
@pytest.mark.parametrize("form", ["answer", "trace"])
def test_what_is_no_answer_ends_the_episode_as_an_invalid_failure(
    action: object, reason: str, form: str
) -> None:
    step = said(action, format=form)
    assert str(step.observation).startswith(reason)
    assert (step.reward, step.terminated) == (0.0, True)
    assert (step.info["success"], step.info["invalid_action"]) == (False, True)


def test_a_search_before_the_solution_belongs_to_the_trace() -> None:
    text = "8 5 2 | 5 - 2 = 3 | 8 3\nanswer 8 * ( 5 - 2 )"
    assert said(text, format="answer").info["invalid_action"] is True
    assert said(text, format="trace").reward == 1.0


def test_only_the_operations_of_the_settings_are_taken() -> None:
    assert said("answer 8 * 5", 40, operations="+-").observation == "only + - may be used"


def test_a_wrong_answer_is_valid_and_worth_what_shaping_says() -> None:
    step = said("answer 8 + 5", 26, shaping=0.5)
    assert step.reward == pytest.approx(0.5 * 0.5)
    assert step.info == {"metrics": {"steps": 1.0}, "success": False}
    assert said("answer 8 * 5 * 2", 24, shaping=0.5).reward == 0.0


EXPRESSIONS = st.recursive(
    st.integers(1, 9).map(str),
    lambda inner: st.tuples(inner, st.sampled_from("+-*/"), inner, st.booleans()).map(
        lambda t: f"( {t[0]} {t[1]} {t[2]} )" if t[3] else f"{t[0]} {t[1]} {t[2]}"
    ),
    max_leaves=6,
)


@given(EXPRESSIONS)
def test_values_are_those_of_an_independent_parser(text: str) -> None:
    try:
        expected = worth(text)
    except ZeroDivisionError:
        assume(False)
    numbers = tuple(n for n in range(9, 0, -1) for _ in range(6))
    assert value_of(text, numbers, "+-*/") == expected


@given(st.text(alphabet="0123456789+-*/() answer\n|=", max_size=60))
def test_whatever_is_said_the_turn_ends(text: str) -> None:
    for form in ("answer", "trace"):
        for action in (text, f"answer {text}"):
            step = said(action, format=form)
            assert step.terminated
            assert step.info["success"] is (step.reward == 1.0)


# --- the expert -----------------------------------------------------------------------------------


@pytest.mark.parametrize("numbers", [2, 3, 4, 5])
def test_the_answer_of_the_expert_is_a_shortest_solution(numbers: int) -> None:
    env = Countdown(numbers=numbers, format="answer")
    for task in env.tasks("train")[:30]:
        env.reset(task)
        target, left = env.snapshot().target, env.snapshot().numbers
        action = env.expert_action()
        text = action.removeprefix("answer ")
        assert worth(text) == target
        assert not Counter(int(n) for n in text.split() if n.isdecimal()) - Counter(left)
        assert text.count("(") == len(shortest(left, target, "+-*/")) - 1
        assert env.step(action).reward == 1.0


@pytest.mark.parametrize("order", ["dfs", "bfs"])
@pytest.mark.parametrize("numbers", [2, 3, 4])
def test_the_trace_of_the_expert_holds_in_every_line(numbers: int, order: str) -> None:
    env = Countdown(numbers=numbers, format="trace", search=order)  # type: ignore[arg-type]
    for task in env.tasks("train")[:30]:
        env.reset(task)
        step = env.step(env.expert_action())
        assert (step.reward, step.info["success"]) == (1.0, True)
        metrics = step.info["metrics"]
        assert isinstance(metrics, dict)
        assert metrics["trace_lines"] >= 1
        assert metrics["trace_right"] == 1.0


def test_a_search_goes_deep_or_broad_and_shows_its_dead_ends() -> None:
    deep, way = search((8, 5, 2), 24, "+-*", "dfs")
    assert [str(line) for line in deep[:4]] == [
        "8 5 2 | 8 + 5 = 13 | 13 2",
        "13 2 | 13 + 2 = 15 | 15",
        "13 2 | 13 - 2 = 11 | 11",
        "13 2 | 13 * 2 = 26 | 26",
    ]
    assert [str(done) for done in way] == ["calc 5 - 2", "calc 8 * 3"]
    broad, same = search((8, 5, 2), 24, "+-*", "bfs")
    assert [line.before for line in broad[:9]] == [(8, 5, 2)] * 9
    assert same == way
    assert str(broad[-1]) == str(deep[-1]) == "8 3 | 8 * 3 = 24 | 24"
    assert express(way) == "8 * ( 5 - 2 )"


@given(st.lists(st.integers(1, 12), min_size=2, max_size=4), st.integers(1, 60))
def test_both_searches_find_a_solution_where_there_is_one(numbers: list[int], target: int) -> None:
    assume(target not in numbers)
    left = tuple(sorted(numbers, reverse=True))
    has_one = solve(left, target, "+-*/") is not None
    for order in ("dfs", "bfs"):
        tried, way = search(left, target, "+-*/", order)
        assert bool(way) is has_one
        if order == "bfs" and way:
            assert len(way) == len(shortest(left, target, "+-*/"))
        if way:
            assert worth(express(way)) == target
        assert right_lines([str(line) for line in tried], left, "+-*/") == len(tried)


def test_an_expert_without_a_solution_guesses() -> None:
    for form in ("answer", "trace"):
        env = dealt(1000, 8, 5, format=form)
        assert env.expert_action().splitlines()[-1] in env.legal_actions()
        assert env.step(env.expert_action()).info["success"] is False


# --- traces of a model ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "holds"),
    [
        ("8 5 2 | 8 + 5 = 13 | 13 2", True),
        ("8 5 2 | 5 - 2 = 3 | 8 3", True),
        ("8 5 2 | 8 + 5 = 14 | 14 2", False),
        ("8 5 2 | 8 + 5 = 13 | 13 5", False),
        ("8 5 | 8 + 5 = 13 | 13", False),
        ("8 5 2 | 8 + 3 = 11 | 11 2", False),
        ("8 5 2 | 8 + 8 = 16 | 16 2", False),
        ("8 5 2 | 5 - 8 = 3 | 3 2", False),
        ("8 5 2 | 8 / 5 = 1 | 2 1", False),
        ("hmm", False),
    ],
)
def test_a_line_holds_if_it_calculates_rightly_from_what_was_left(line: str, holds: bool) -> None:
    step = said(f"{line}\nanswer 8 * ( 5 - 2 )", format="trace")
    assert step.reward == 1.0, "the solution alone decides"
    assert step.info["metrics"] == {"steps": 1.0, "trace_lines": 1.0, "trace_right": float(holds)}


def test_a_line_that_follows_one_that_does_not_hold_does_not_hold_either() -> None:
    lines = ["8 5 2 | 8 + 5 = 14 | 14 2", "14 2 | 14 + 2 = 16 | 16"]
    assert right_lines(lines, (8, 5, 2), "+-*/") == 0
    assert right_lines(["8 5 2 | 8 * 5 = 40 | 40 2"], (8, 5, 2), "+-") == 0


# --- as an environment ----------------------------------------------------------------------------


def test_legal_answers_are_valid_the_same_each_time_and_seldom_right() -> None:
    env, lucky, count = Countdown(format="answer"), 0, 0
    for task in env.tasks("dev")[:100]:
        env.reset(task)
        here, legal = env.snapshot(), env.legal_actions()
        assert legal == env.legal_actions()
        assert len(set(legal)) == len(legal) > 5
        for action in Random(task.id).sample(legal, 3):
            step = env.step(action)
            assert "invalid_action" not in step.info
            lucky, count = lucky + bool(step.info["success"]), count + 1
            env.restore(here)
    assert lucky < 0.1 * count


def test_every_format_has_the_same_tasks() -> None:
    tasks = [Countdown(format=form).tasks("test")[:20] for form in ("steps", "answer", "trace")]
    assert tasks[0] == tasks[1] == tasks[2]


def test_a_snapshot_can_be_answered_in_another_copy() -> None:
    saved = pickle.loads(pickle.dumps(dealt(24, 8, 5, 2).snapshot()))
    other = Countdown(format="answer")
    other.restore(saved)
    assert other.step("answer 8 * ( 5 - 2 )").reward == 1.0
    with pytest.raises(RuntimeError, match="the episode is over"):
        other.step("answer 8")


@pytest.mark.parametrize("fields", [{"turns": 3}, {"ends": "answer"}])
def test_settings_of_steps_are_config_errors_in_a_single_turn(fields: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"they belong to env\.format=steps"):
        Countdown(format="trace", **fields)  # type: ignore[arg-type]
