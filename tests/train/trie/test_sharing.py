"""An alarm when rows stop sharing tokens, and none for what varies from step to step."""

from random import Random

from agentrl.core.types import Sum
from agentrl.train.trie.sharing import KEY, Sharing


def told(sharing: Sharing, *ratios: float) -> list[bool]:
    return [bool(sharing.drop({KEY: Sum(ratio * 1000, 1000)})) for ratio in ratios]


def test_a_drop_is_told_and_the_level_stays() -> None:
    sharing = Sharing()
    assert not any(told(sharing, *[2.5] * 10))
    text = sharing.drop({KEY: Sum(1050, 1000)})
    assert "1.05 tokens for each distinct one, against 2.50" in text
    assert told(sharing, 1.05, 2.4) == [True, False]


def test_noise_a_slow_change_and_too_few_steps_are_no_alarm() -> None:
    rng = Random(0)
    assert not any(told(Sharing(), *(rng.uniform(2.0, 3.0) for _ in range(200))))
    assert not any(told(Sharing(), *(3.0 - step / 100 for step in range(190))))
    assert not any(told(Sharing(), 3.0, 1.0, 1.2, 1.0))
    assert not any(told(Sharing(), *[1.01] * 10, 1.0))


def test_a_scorer_that_shares_nothing_is_not_watched() -> None:
    assert Sharing(level=3.0, steps=10).drop({}) == ""
