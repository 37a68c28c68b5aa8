"""Group-relative estimators: numbers of their formulas, and what must hold of any rewards."""

import math
from collections.abc import Sequence
from statistics import stdev

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrl.algo.advantages.grpo import GroupNormalised
from agentrl.algo.advantages.rloo import LeaveOneOut
from agentrl.core.protocols import Advantage
from agentrl.core.types import Level
from support.credit import scored

GRPO, BATCH, CENTRED, RLOO = (
    GroupNormalised(eps=0.0),
    GroupNormalised(scale="batch", eps=0.0),
    GroupNormalised(scale="none"),
    LeaveOneOut(),
)
EVERY = pytest.mark.parametrize(
    "estimator",
    [GroupNormalised(), GroupNormalised(scale="batch"), CENTRED, RLOO],
    ids=["grpo", "grpo_batch", "dr_grpo", "rloo"],
)
rewards = st.floats(-10, 10).map(lambda r: round(r, 3))
groups = st.lists(rewards, min_size=2, max_size=8)


def of(estimator: Advantage, *groups: Sequence[float | None]) -> list[list[float]]:
    out = estimator(scored(*groups))
    assert out.level is Level.TRAJECTORY
    found: list[list[float]] = []
    for group in out.values:
        found.append([])
        for value in group:
            assert isinstance(value, float)
            found[-1].append(value)
    return found


# --- gold ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("estimator", "rewards_G", "expected"),
    [
        (GRPO, [1, 0, 0, 1], [0.8660, -0.8660, -0.8660, 0.8660]),
        (CENTRED, [1, 0, 0, 1], [0.5, -0.5, -0.5, 0.5]),
        (RLOO, [1, 0, 0, 1], [0.6667, -0.6667, -0.6667, 0.6667]),
        (GRPO, [1, *[0] * 7], [2.4749, *[-0.3536] * 7]),
        (RLOO, [1, *[0] * 7], [1.0, *[-0.1429] * 7]),
    ],
)
def test_one_group(estimator: Advantage, rewards_G: list[float], expected: list[float]) -> None:
    assert of(estimator, rewards_G) == [pytest.approx(expected, abs=1e-4)]


def test_each_group_is_scaled_by_its_own_deviation() -> None:
    first, second = of(GRPO, [1, 0, 0, 0], [1, 1, 1, 0])
    assert first == pytest.approx([1.5, -0.5, -0.5, -0.5])
    assert second == pytest.approx([0.5, 0.5, 0.5, -1.5])


def test_the_batch_scale_divides_by_the_deviation_of_all_rewards() -> None:
    first, second = of(BATCH, [1, 0, 0, 0], [1, 1, 1, 0])
    deviation = stdev([1, 0, 0, 0, 1, 1, 1, 0])
    assert first == pytest.approx([0.75 / deviation, *[-0.25 / deviation] * 3])
    assert second == pytest.approx([*[0.25 / deviation] * 3, -0.75 / deviation])
    assert deviation == pytest.approx(0.5345, abs=1e-4)


def test_eps_stands_beside_the_deviation_not_inside_it() -> None:
    (got,) = of(GroupNormalised(eps=0.5), [1.0, 0.0])
    assert got == pytest.approx([0.5 / (math.sqrt(0.5) + 0.5), -0.5 / (math.sqrt(0.5) + 0.5)])
    assert GroupNormalised().eps == 1e-4


# --- laws ----------------------------------------------------------------------------------------


@EVERY
def test_laws_of_group_statistics(estimator: Advantage) -> None:
    @given(st.lists(groups, min_size=1, max_size=3), st.integers(-50, 50))
    def check(step: list[list[float]], shift: int) -> None:
        plain = of(estimator, *step)
        for values_G in plain:
            assert math.fsum(values_G) == pytest.approx(0.0, abs=1e-6)
        shifted = of(estimator, *([r + shift for r in group_G] for group_G in step))
        for a, b in zip(plain, shifted, strict=True):
            assert a == pytest.approx(b, abs=1e-6, rel=1e-6)
        backwards = of(estimator, *(group_G[::-1] for group_G in step))
        for a, b in zip(plain, backwards, strict=True):
            assert a == pytest.approx(b[::-1], abs=1e-9)

    check()


@EVERY
@given(st.lists(rewards, min_size=2, max_size=6))
def test_a_better_reward_never_gets_a_lower_advantage(
    estimator: Advantage, rewards_G: list[float]
) -> None:
    (values_G,) = of(estimator, rewards_G)
    pairs = sorted(zip(rewards_G, values_G, strict=True))
    assert [value for _, value in pairs] == sorted(values_G)


@EVERY
@pytest.mark.parametrize("reward", [0.0, 1.0, 0.1, -3.7])
@pytest.mark.parametrize("size", [1, 2, 7])
def test_equal_rewards_give_exactly_zero(estimator: Advantage, reward: float, size: int) -> None:
    assert of(estimator, [reward] * size, [0.0, 1.0])[0] == [0.0] * size


@EVERY
def test_those_without_a_reward_are_left_out_and_change_nothing(estimator: Advantage) -> None:
    (values_G,) = estimator(scored([1.0, None, 0.0, math.nan, 0.0])).values
    assert (values_G[1], values_G[3]) == (None, None)
    (alone_G,) = of(estimator, [1.0, 0.0, 0.0])
    assert [values_G[i] for i in (0, 2, 4)] == alone_G


@pytest.mark.parametrize("estimator", [GRPO, CENTRED, RLOO])
def test_ragged_groups_get_what_each_gets_alone(estimator: Advantage) -> None:
    three, five = [1.0, 0.0, 0.5], [0.0, 0.0, 1.0, 2.0, 0.3]
    assert of(estimator, three, five) == [of(estimator, three)[0], of(estimator, five)[0]]


@given(groups)
def test_rloo_is_the_centred_reward_times_n_over_n_minus_one(rewards_G: list[float]) -> None:
    n = len(rewards_G)
    (loo_G,), (centred_G,) = of(RLOO, rewards_G), of(CENTRED, rewards_G)
    assert loo_G == pytest.approx([n / (n - 1) * a for a in centred_G], abs=1e-9)
    for i, value in enumerate(loo_G):
        others = rewards_G[:i] + rewards_G[i + 1 :]
        assert value == pytest.approx(rewards_G[i] - sum(others) / (n - 1), abs=1e-9)
