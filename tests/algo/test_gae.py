"""Generalised advantage estimation over tokens and turns: worked numbers, ends, and what is never
seen."""

import math
from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from agentrl.algo.advantages.bilevel_gae import BilevelGae
from agentrl.algo.advantages.token_gae import TokenGae
from agentrl.algo.advantages.turn_gae import TurnGae
from agentrl.algo.gae import gae
from agentrl.core.errors import DataError
from agentrl.core.protocols import Advantage
from agentrl.core.types import AdvantageOut, Group, Level, Scored, Stop, Trajectory
from support import ragged
from support.credit import TASK, turned

PLAIN: dict[str, Any] = {"whiten": False}
ESTIMATORS = (TokenGae(), TurnGae(), TurnGae(anchor="last"), BilevelGae())
RAW: tuple[TokenGae | TurnGae | BilevelGae, ...] = (
    TokenGae(whiten=False),
    TurnGae(whiten=False),
    TurnGae(anchor="last", whiten=False),
    BilevelGae(gamma_turn=1.0, whiten=False),
)


def valued(values: Sequence[float], *trajectories: Trajectory, beyond: float = 0.0) -> Scored:
    """A group whose trajectories all have these values."""
    return Scored(
        groups=(Group(task=TASK, trajectories=trajectories),),
        values=[[list(values) for _ in trajectories]],
        end_values=[[beyond for _ in trajectories]],
    )


def first(out: AdvantageOut) -> tuple[Any, Any]:
    """Advantages and targets of the first trajectory."""
    assert out.returns is not None
    return out.values[0][0], out.returns[0][0]


ONE_TURN = turned([3], 1.0)
TWO_TURNS = turned([2, 2], 1.0, turns=(0.0, 1.0))
VALUES = [0.2, 0.4, 0.5, 0.6]


def test_tokens_meet_the_worked_numbers() -> None:
    step = valued([0.5, 0.6, 0.7], ONE_TURN)
    advantages, targets = first(TokenGae(**PLAIN)(step))
    assert advantages == pytest.approx([0.5, 0.4, 0.3])
    assert targets == pytest.approx([1.0, 1.0, 1.0])
    advantages, _ = first(TokenGae(lam=0.95, **PLAIN)(step))
    assert advantages == pytest.approx([0.46575, 0.385, 0.3])


def test_two_levels_meet_the_worked_numbers() -> None:
    out = BilevelGae(gamma_turn=0.9, **PLAIN)(valued(VALUES, TWO_TURNS))
    advantages, targets = first(out)
    assert advantages == pytest.approx([0.7, 0.5, 0.5, 0.4])
    assert targets == pytest.approx([0.9, 0.9, 1.0, 1.0])


def test_a_turn_that_is_paid_nothing_keeps_its_end() -> None:
    together = BilevelGae(gamma_turn=0.9, **PLAIN)(valued(VALUES, turned([4], 1.0)))
    assert first(together)[0] == pytest.approx([0.8, 0.6, 0.5, 0.4])


def test_a_turn_is_worth_what_its_anchor_says() -> None:
    step = valued(VALUES, TWO_TURNS)
    advantages, targets = first(TurnGae(gamma=0.9, **PLAIN)(step))
    assert advantages == pytest.approx([0.7, 0.5])
    assert targets == pytest.approx([0.9, math.nan, 1.0, math.nan], nan_ok=True)
    advantages, targets = first(TurnGae(gamma=0.9, anchor="last", **PLAIN)(step))
    assert advantages == pytest.approx([0.5, 0.4])
    assert targets == pytest.approx([math.nan, 0.9, math.nan, 1.0], nan_ok=True)


def test_without_lambda_a_step_sees_the_next_value_alone() -> None:
    advantages, targets = first(TokenGae(lam=0.0, **PLAIN)(valued(VALUES, TWO_TURNS)))
    assert advantages == pytest.approx([0.2, 0.1, 0.1, 0.4])
    assert targets == pytest.approx([0.4, 0.5, 0.6, 1.0])


@pytest.mark.parametrize("estimator", RAW, ids=repr)
@pytest.mark.parametrize("stop", [s for s in Stop if not s.is_failure])
def test_only_behind_a_truncation_stands_a_value(estimator: Advantage, stop: Stop) -> None:
    ended = replace(TWO_TURNS, stop=stop)
    _, targets = first(estimator(valued(VALUES, ended, beyond=0.5)))
    known = [target for target in targets if not math.isnan(target)]
    assert known[-1] == pytest.approx(1.5 if stop.is_truncation else 1.0)


@pytest.mark.parametrize("stop", [Stop.MAX_TURNS, Stop.DONE])
def test_a_cut_off_episode_equals_the_whole_one_cut_where_values_are_right(stop: Stop) -> None:
    whole = gae([0.0, 0.0, 1.0], [0.3, 0.4, 0.5], gamma=0.9, lam=0.0)
    cut = gae([0.0, 0.0], [0.3, 0.4], gamma=0.9, lam=0.0, beyond=0.5)
    assert cut == pytest.approx(whole[:2])


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=repr)
def test_what_was_paid_in_a_turn_without_tokens_is_not_lost(estimator: Advantage) -> None:
    empty = turned([0, 2, 0, 2], 1.0, turns=(0.25, 0.0, 0.25, 0.5))
    full = turned([2, 2], 1.0, turns=(0.5, 0.5))
    found, targets = first(estimator(valued(VALUES, empty)))
    expected, wanted = first(estimator(valued(VALUES, full)))
    assert targets == pytest.approx(wanted, nan_ok=True)
    sampled = [found[1], found[3]] if len(found) == 4 and isinstance(estimator, TurnGae) else found
    assert sampled == pytest.approx(expected)


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=repr)
def test_whitened_advantages_have_mean_0_and_deviation_1_over_the_tokens(
    estimator: Advantage,
) -> None:
    step = ragged.scored(Random(3), [ragged.group(Random(n)) for n in range(20)])
    out = estimator(step)
    tokens: list[float] = []
    for group, values in zip(step.groups, out.values, strict=True):
        for trajectory, own in zip(group.trajectories, values, strict=True):
            if own is not None and out.level is Level.TOKEN:
                tokens += own  # type: ignore[arg-type]
            elif own is not None:
                pairs = zip(own, trajectory.turns, strict=True)  # type: ignore[arg-type]
                tokens += [value for value, turn in pairs for _ in turn.action_ids]
    mean = math.fsum(tokens) / len(tokens)
    variance = math.fsum((t - mean) ** 2 for t in tokens) / (len(tokens) - 1)
    assert mean == pytest.approx(0.0, abs=1e-9)
    assert variance == pytest.approx(1.0)


def slow(trajectory: Trajectory, values: Sequence[float], beyond: float, lam: float) -> list[float]:
    """Token GAE as a sum of discounted errors, in the order of its definition."""
    assert trajectory.score is not None
    paid = [0.0] * len(values)
    ends, position = [], 0
    for turn in trajectory.turns:
        position += len(turn.action_ids)
        ends.append(position - 1)
    shares = trajectory.score.turns or (*[0.0] * (len(ends) - 1), trajectory.score.value)
    for end, share in zip(ends, shares, strict=True):
        paid[end] += share
    paid[-1] += trajectory.score.value - math.fsum(shares)
    following = [*values[1:], beyond if trajectory.stop.is_truncation else 0.0]
    errors = [r + 0.9 * n - v for r, n, v in zip(paid, following, values, strict=True)]
    return [
        math.fsum((0.9 * lam) ** (k - t) * errors[k] for k in range(t, len(errors)))
        for t in range(len(errors))
    ]


def test_ragged_steps_equal_the_definition() -> None:
    compared = 0
    for seed in range(200):
        rng = Random(seed)
        step = ragged.scored(rng, [ragged.group(rng) for _ in range(3)])
        assert step.values is not None
        assert step.end_values is not None
        out = TokenGae(gamma=0.9, lam=0.7, whiten=False)(step)
        for g, group in enumerate(step.groups):
            for i in group.scored:
                if not step.values[g][i]:
                    continue
                expected = slow(
                    group.trajectories[i], step.values[g][i], step.end_values[g][i], 0.7
                )
                assert out.values[g][i] == pytest.approx(expected, rel=1e-9, abs=1e-9)
                compared += 1
    assert compared > 500


@pytest.mark.parametrize("estimator", RAW, ids=repr)
def test_values_that_are_right_leave_no_advantage(estimator: Advantage) -> None:
    exact = turned([2, 2], 1.0, turns=(0.0, 1.0))
    found, targets = first(estimator(valued([1.0] * 4, exact)))
    assert found == pytest.approx([0.0] * len(found))
    assert {t for t in targets if not math.isnan(t)} == {1.0}


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=repr)
def test_a_step_without_values_is_refused(estimator: Advantage) -> None:
    step = valued(VALUES, TWO_TURNS)
    with pytest.raises(DataError, match="needs a critic"):
        estimator(replace(step, values=None))
    with pytest.raises(DataError, match="expected 4 values for trajectory 0 of group 0, got 3"):
        estimator(valued(VALUES[:3], TWO_TURNS))
