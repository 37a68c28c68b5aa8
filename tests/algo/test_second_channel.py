"""The second channel's numbers, worked by hand."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrl.algo.advantages.grpo import GroupNormalised
from agentrl.algo.advantages.rloo import LeaveOneOut
from agentrl.algo.second_channel import bonus_advantages, paid, seen
from agentrl.core.channel import Channel
from agentrl.core.protocols import Advantage
from agentrl.core.types import Group, Scored
from support.credit import rewarded

FIXED = Channel(anneal=None, adapt=False)
ALL_OF_IT = Channel(scale=1.0, anneal=None, adapt=False)


def succeeding(*rewards: float) -> Group:
    group = rewarded(rewards)
    episodes = (replace(t, success=bool(t.score and t.score.value)) for t in group.trajectories)
    return replace(group, trajectories=tuple(episodes))


def test_an_episode_gets_at_most_the_cap_and_its_turns_keep_their_proportions() -> None:
    assert paid([[1.0, 2.0], [6.0, 4.0], [], [0.0]], FIXED) == [
        [pytest.approx(0.1), pytest.approx(0.2)],
        [pytest.approx(0.3), pytest.approx(0.2)],
        [],
        [0.0],
    ]


def test_one_bonus_where_all_rewards_are_zero_is_scaled_by_the_coefficient() -> None:
    """Rewards 0, 0, 0, 0 and one clipped bonus of .5: centred .375 and -.125, over s0 = 1. Under
    the additive rule with a group's own std, every c > 0 would give 1.73 and -.58."""
    [first, *others] = bonus_advantages(paid([[0.5], [0.0], [0.0], [0.0]], ALL_OF_IT), ALL_OF_IT)
    assert first == [0.375]
    assert others == [[-0.125]] * 3
    fading = Channel(adapt=False, anneal=0.5)
    assert [fading.coefficient(done) * first[0] for done in (0.0, 0.25, 0.5, 1.0)] == [
        0.375,
        0.1875,
        0.0,
        0.0,
    ]


def test_the_divisor_is_the_std_only_where_that_is_larger_than_s0() -> None:
    channel = Channel(coef=0.01, cap=10.0, scale=1.0)
    [[high], [low]] = bonus_advantages([[8.0], [0.0]], channel)
    assert (high, low) == (1.0, -1.0)
    [[high], [low]] = bonus_advantages([[0.5], [0.0]], channel)
    assert (high, low) == (0.25, -0.25)


def test_at_turn_level_each_turn_is_centred_over_the_siblings_that_have_it() -> None:
    """Returns with gamma .5: [.2 + .05, .1] and [.4]; turn 0 is centred about .325, turn 1 has no
    sibling and gets 0."""
    channel = Channel(level="turn", gamma=0.5)
    [long, short] = bonus_advantages([[0.2, 0.1], [0.4]], channel)
    assert long == [pytest.approx(-0.075), 0.0]
    assert short == [pytest.approx(0.075)]


def test_equal_bonuses_give_exact_zeros() -> None:
    third = [[0.1, 0.2], [0.1, 0.2], [0.1, 0.2]]
    for level in ("trajectory", "turn"):
        channel = Channel(level=level)
        assert bonus_advantages(third, channel) == [[0.0, 0.0]] * 3


@pytest.mark.parametrize("level", ["trajectory", "turn"])
@pytest.mark.parametrize("estimator", [GroupNormalised(), LeaveOneOut()])
@given(data=st.data())
def test_no_bonus_ranks_a_failure_above_a_success(
    data: st.DataObject, estimator: Advantage, level: str
) -> None:
    wins = data.draw(st.lists(st.booleans(), min_size=2, max_size=8))
    turns = st.lists(st.floats(0, 1e6), min_size=1, max_size=4)
    ratings = [data.draw(turns) for _ in wins]
    channel = Channel(level="turn" if level == "turn" else "trajectory")
    second = bonus_advantages(paid(ratings, channel), channel)
    task = estimator(Scored(groups=(rewarded([float(win) for win in wins]),))).values[0]
    total = [
        [a + channel.coef * b for b in own]
        for a, own in zip(task, second, strict=True)
        if isinstance(a, float)
    ]
    worst = min((x for x, win in zip(total, wins, strict=True) if win), default=[math.inf], key=min)
    best = max((x for x, win in zip(total, wins, strict=True) if not win), default=[-9.0], key=max)
    assert max(best) < min(worst)


def test_what_a_step_shows_of_the_channel() -> None:
    """One group without a success, one of successes alone, one whose bonus goes with the score and
    one without different bonuses."""
    groups = [succeeding(0, 0), succeeding(1, 1), succeeding(1, 0), succeeding(1, 0)]
    found = seen(groups, [[0.5, 0.0], [0.5, 0.0], [0.4, 0.2], [0.1, 0.1]])
    assert (found.hopeless, found.groups) == (0.25, 1)
    assert found.products == pytest.approx(0.1)
    assert found.scores == 0.5
    assert found.bonuses == pytest.approx(0.02)
