import itertools
import math
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentrl.core.errors import DataError
from agentrl.core.types import Failure, Group, Stop, Trajectory
from agentrl.evaluate.statistics import (
    MARKDOWN_HEADER,
    EvalResult,
    append_eval,
    cut_evals,
    pass_at_k,
    read_evals,
    summarise,
    wilson,
)
from support.runs import Words, broken, episode, task

Z = 1.959964


def wilson_by_bisection(successes: int, n: int) -> tuple[float, float]:
    """The proportions p whose score test just accepts what was seen: |seen - p| = z sqrt(pq/n)."""
    seen = successes / n

    def accepts(p: float) -> bool:
        return abs(seen - p) <= Z * math.sqrt(p * (1 - p) / n)

    def edge(inside: float, outside: float) -> float:
        for _ in range(200):
            middle = (inside + outside) / 2
            inside, outside = (middle, outside) if accepts(middle) else (inside, middle)
        return inside

    return edge(seen, 0.0), edge(seen, 1.0)


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_inverts_the_score_test(counts: tuple[int, int]) -> None:
    assert wilson(*counts) == pytest.approx(wilson_by_bisection(*counts), abs=1e-9)


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(91, 200, 0.387, 0.524), (190, 200, 0.910, 0.973), (0, 64, 0.0, 0.057), (200, 200, 0.981, 1)],
)
def test_wilson_gives_published_intervals(successes: int, n: int, low: float, high: float) -> None:
    assert wilson(successes, n) == pytest.approx((low, high), abs=5e-4)


@pytest.mark.parametrize("n", [1, 7, 200, 1000])
def test_wilson_ends_exactly_where_nothing_or_everything_succeeded(n: int) -> None:
    assert (wilson(0, n)[0], wilson(n, n)[1]) == (0.0, 1.0)


def test_wilson_without_a_trial_excludes_nothing() -> None:
    assert wilson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(("successes", "n"), [(-1, 5), (6, 5), (1, 0)])
def test_wilson_refuses_counts_that_cannot_be(successes: int, n: int) -> None:
    with pytest.raises(DataError, match=f"got {successes} of {n}"):
        wilson(successes, n)


def test_pass_at_k_gold() -> None:
    assert pass_at_k(8, 2, 4) == pytest.approx(0.7857, abs=1e-4)
    assert pass_at_k(8, 2, 4) == pytest.approx(1 - 15 / 70, rel=1e-12)


@pytest.mark.parametrize("n", [1, 2, 5, 7])
def test_pass_at_k_counts_the_subsets_with_a_success(n: int) -> None:
    for c, k in itertools.product(range(n + 1), range(1, n + 1)):
        subsets = list(itertools.combinations(range(n), k))
        share = sum(any(sample < c for sample in subset) for subset in subsets) / len(subsets)
        assert pass_at_k(n, c, k) == pytest.approx(share, abs=1e-12)


@pytest.mark.parametrize(("n", "c", "k"), [(3, 4, 1), (3, 1, 4), (3, 1, 0), (3, -1, 1)])
def test_pass_at_k_refuses_what_cannot_be_drawn(n: int, c: int, k: int) -> None:
    with pytest.raises(DataError, match=f"n={n}, c={c}, k={k}"):
        pass_at_k(n, c, k)


def played(success: bool, n_turns: int = 2, invalid_turn: int | None = None) -> Trajectory:
    return episode(
        Words(), task(1), seed=n_turns, success=success, n_turns=n_turns, invalid_turn=invalid_turn
    )


def group(*trajectories: Trajectory) -> Group:
    return Group(task=task(1), trajectories=trajectories)


def three_tasks() -> EvalResult:
    judge_down = replace(
        played(True), stop=Stop.ERROR, failure=Failure(where="reward", error="503"), score=None
    )
    groups = [
        group(played(True, 2), played(True, 4), played(False, 6, invalid_turn=1), played(False, 8)),
        group(played(False, 4), broken(task(1)), played(False, 4), judge_down),
        group(broken(task(1)), broken(task(1))),
    ]
    return summarise("final", groups, step=50, split="test", seconds=2.5)


def test_failed_episodes_are_counted_and_enter_no_mean() -> None:
    result = three_tasks()
    assert (result.tasks, result.samples, result.episodes, result.counted) == (3, 4, 10, 6)
    assert result.failures == {"env": 3, "reward": 1}
    assert (result.successes, result.success) == (2, 2 / 6)
    assert (result.low, result.high) == pytest.approx(wilson_by_bisection(2, 6), abs=1e-9)
    assert result.turns == (2 + 4 + 6 + 8 + 4 + 4) / 6
    assert result.invalid == 1 / (2 + 4 + 6 + 8 + 4 + 4)
    assert result.reward == pytest.approx((1 - 0.9 * 2 / 16 + 1 - 0.9 * 4 / 16) / 6)
    assert result.stops == {"max_turns": 4, "timeout": 3, "done": 2, "error": 1}


def test_tokens_are_the_sampled_ones() -> None:
    one = played(True, 3)
    result = summarise("x", [group(one)], step=0, split="dev", seconds=0.0)
    assert result.tokens == sum(len(turn.action_ids) for turn in one.turns)


def test_pass_at_k_is_a_mean_over_tasks_with_enough_samples() -> None:
    result = three_tasks()
    assert set(result.pass_at_k) == {1, 2, 4}
    assert result.pass_at_k[1] == pytest.approx((2 / 4 + 0 / 2) / 2)
    assert result.pass_at_k[2] == pytest.approx((1 - 1 / 6 + 0) / 2)
    assert result.pass_at_k[4] == 1.0


def test_a_success_that_nobody_stated_is_none() -> None:
    unknown = replace(played(True), success=None)
    result = summarise("x", [group(unknown, played(True))], step=0, split="dev", seconds=0.0)
    assert (result.successes, result.counted) == (1, 2)


def test_a_reward_that_was_not_scored_is_the_return_of_the_env() -> None:
    one = replace(played(True, 2), score=None)
    result = summarise("x", [group(one)], step=0, split="dev", seconds=0.0)
    assert result.reward == pytest.approx(1 - 0.9 * 2 / 16)


@pytest.mark.parametrize("groups", [[], [group(broken(task(1)))]])
def test_nothing_to_count_gives_no_number(groups: list[Group]) -> None:
    result = summarise("x", groups, step=0, split="dev", seconds=0.0)
    assert math.isnan(result.success)
    assert (result.low, result.high, result.pass_at_k) == (0.0, 1.0, {})
    assert result.to_json()["success"] is None
    assert math.isnan(EvalResult.from_json(result.to_json()).success)
    assert "success - (0.0 % to 100.0 %)" in result.lines()[0]


def test_results_come_back_from_the_run_folder(tmp_path: Path) -> None:
    assert read_evals(tmp_path) == []
    first, second = three_tasks(), replace(three_tasks(), name="expert", step=0)
    append_eval(tmp_path, first)
    append_eval(tmp_path, second)
    assert read_evals(tmp_path) == [first, second]


def test_a_result_without_a_field_is_refused_and_a_new_field_is_not() -> None:
    plain = three_tasks().to_json()
    assert EvalResult.from_json(plain | {"colour": "red"}) == three_tasks()
    with pytest.raises(DataError, match="successes"):
        EvalResult.from_json({key: plain[key] for key in plain if key != "successes"})


def test_the_terminal_lines_name_every_number() -> None:
    assert three_tasks().lines() == [
        "final on test, step 50: success 33.3 % (9.7 % to 70.0 %), 2 of 6 episodes (3 tasks x 4)",
        "  reward 0.277, turns 4.67, tokens 13.2, invalid turns 3.6 %, pass@2 41.7 %, "
        "pass@4 100.0 %, 2.5 s",
        "  stops: max_turns 4, timeout 3, done 2, error 1; failures: env 3, reward 1",
    ]


def test_a_markdown_row_has_the_columns_of_its_header() -> None:
    row = replace(three_tasks(), name="a|b").markdown()
    header, rule = MARKDOWN_HEADER.splitlines()
    assert row.replace("\\|", "").count("|") == header.count("|") == rule.count("|")
    assert row.startswith("| a\\|b | test | 33.3 % | 9.7 % to 70.0 % | 2 of 6 |")


def test_evaluations_after_the_checkpoint_are_cut_back(tmp_path: Path) -> None:
    groups = [group(episode(Words(), task(1), seed=1))]
    for name, step in (("sft", 0), ("step", 10), ("step", 20), ("step", 30), ("final", 20)):
        append_eval(tmp_path, summarise(name, groups, step=step, split="dev", seconds=1.0))
    before = (tmp_path / "evals.jsonl").read_text().splitlines()
    cut_evals(tmp_path, 20)
    assert [(e.name, e.step) for e in read_evals(tmp_path)] == [
        ("sft", 0), ("step", 10), ("step", 20),
    ]  # fmt: skip
    assert (tmp_path / "evals.jsonl").read_text().splitlines() == before[:3]
