"""Coin flips count: their regression has the size of one over the visits."""

import json

import numpy as np
import pytest

from agentrl.core.errors import ConfigError
from agentrl.explore.bonuses.cfn import CoinFlips
from support.walks import walk, walks


@pytest.mark.parametrize(("visits", "expected"), [(1, 0.99), (4, 0.25), (16, 0.0625), (64, 0.0156)])
def test_on_tabular_features_the_mean_square_is_one_over_the_visits(
    visits: int, expected: float
) -> None:
    """Over 64 states with 20 coins each, a relative error of about 4 %."""
    bonus = CoinFlips(size=64)
    for phi in [row for row in np.eye(64) for _ in range(visits)]:
        bonus.visit([phi])
    squares = [bonus.mean_square(row) for row in np.eye(64)]
    assert np.mean(squares) == pytest.approx(expected, rel=0.15)


def test_what_was_never_seen_is_worth_about_one_and_counts_generalise() -> None:
    bonus = CoinFlips()
    for _ in range(20):
        bonus.observe([walks(episodes=[walk("a", heard=["a red door ahead"])])])
    group = walks(
        episodes=[
            walk("x", heard=[text])
            for text in ("lava burns in the cave", "a red door behind", "a red door ahead")
        ]
    )
    [[[new], [alike], [same]]] = bonus.rate([group])
    assert new > 0.7
    assert new > alike > same
    assert same == pytest.approx(20**-0.5, rel=0.5)


def test_its_state_survives_as_json_and_the_next_coins_are_the_same() -> None:
    bonus, twin = CoinFlips(), CoinFlips()
    first = [walks(episodes=[walk("ab", heard=["one thing", "two things"])])]
    bonus.observe(first)
    twin.restore(json.loads(json.dumps(bonus.state())))
    assert twin.rate(first) == bonus.rate(first)
    for each in (bonus, twin):
        each.observe(first)
    assert twin.rate(first) == bonus.rate(first)


def test_another_state_is_refused() -> None:
    with pytest.raises(ConfigError, match="bonus: expected the state of an array"):
        CoinFlips(size=32).restore(CoinFlips(size=64).state())
    with pytest.raises(ConfigError, match="bonus: expected the state of cfn"):
        CoinFlips().restore({"a": 1})
