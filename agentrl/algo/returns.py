"""Rewards of turns and tokens, their discounted sums, and whitening, in plain Python.

Axes of ragged lists: `K` turns, `T` sampled tokens in turn order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from math import fsum

from agentrl.core.types import Trajectory

FLOOR = 1e-8
"""Added to the variance when values are whitened."""


def turn_rewards(trajectory: Trajectory) -> list[float]:
    """`[K]`: the score's own turns; what they do not account for, or a score without turns, is paid
    in the last turn. Their sum is the score's value."""
    score = trajectory.score
    assert score is not None  # whoever asks has looked at is_scored
    turns = [0.0] * len(trajectory.turns) if score.turns is None else list(score.turns)
    if turns:
        turns[-1] += score.value - fsum(turns)
    return turns


def returns_to_go(rewards: Sequence[float], gamma: float) -> list[float]:
    """`R_k = r_k + gamma R_{k+1}`."""
    total, found = 0.0, []
    for reward in reversed(rewards):
        total = reward + gamma * total
        found.append(total)
    return found[::-1]


def token_returns(trajectory: Trajectory, gamma: float) -> list[float]:
    """`[T]`: each turn's reward falls on its last token, and every later token counts one step."""
    later, found = 0.0, []
    pairs = zip(trajectory.turns, turn_rewards(trajectory), strict=True)
    for turn, reward in reversed([*pairs]):
        later = reward + gamma * later if turn.action_ids else reward + later
        for number in range(len(turn.action_ids)):
            later = later if number == 0 else gamma * later
            found.append(later)
    return found[::-1]


def mean_and_variance(values: Sequence[float]) -> tuple[float, float]:
    """With ddof 1; the variance of fewer than two values is 0."""
    if not values:
        return 0.0, 0.0
    mean = fsum(values) / len(values)
    squares = fsum((value - mean) ** 2 for value in values)
    return mean, squares / max(len(values) - 1, 1)


def whitened(values: Sequence[float]) -> tuple[float, float]:
    """Mean and divisor `sqrt(variance + 1e-8)` that whiten the values."""
    mean, variance = mean_and_variance(values)
    return mean, math.sqrt(variance + FLOOR)
