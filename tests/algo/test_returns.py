"""Rewards of turns and tokens and their discounted sums, by hand."""

import math

import pytest

from agentrl.algo.returns import (
    mean_and_variance,
    returns_to_go,
    token_returns,
    turn_rewards,
    whitened,
)
from support.credit import turned


def test_what_a_score_s_turns_do_not_account_for_is_paid_at_the_end() -> None:
    assert turn_rewards(turned([1, 2, 3], 1.0)) == [0.0, 0.0, 1.0]
    assert turn_rewards(turned([1, 1], 1.0, turns=(0.25, 0.5))) == [0.25, 0.75]
    assert turn_rewards(turned([], 1.0)) == []


def test_returns_go_backwards() -> None:
    assert returns_to_go([0, 0, 1], 0.9) == pytest.approx([0.81, 0.9, 1.0])
    assert returns_to_go([], 0.9) == []


def test_a_turn_s_reward_falls_on_its_last_token() -> None:
    both = turned([2, 1], 3.0, turns=(1.0, 2.0))
    assert token_returns(both, 1.0) == [3.0, 3.0, 2.0]
    assert token_returns(both, 0.5) == [0.5 * (1 + 0.5 * 2), 1 + 0.5 * 2, 2.0]


def test_a_turn_without_tokens_passes_its_reward_on_to_the_token_before() -> None:
    assert token_returns(turned([1, 0], 3.0, turns=(1.0, 2.0)), 0.5) == [1.0 + 0.5 * 2.0]


def test_whitening_four_numbers() -> None:
    mean, divisor = whitened([1, 2, 3, 4])
    white = [(x - mean) / divisor for x in (1, 2, 3, 4)]
    assert white == pytest.approx([-1.1619, -0.3873, 0.3873, 1.1619], abs=1e-4)
    assert mean_and_variance([]) == (0.0, 0.0)
    assert whitened([5.0]) == (5.0, math.sqrt(1e-8))
