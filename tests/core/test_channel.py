"""The second channel's coefficient fades with training, with need and with help."""

import json

import pytest

from agentrl.core.channel import Channel, Seen
from agentrl.core.errors import ConfigError
from agentrl.core.types import Json


def test_the_coefficient_falls_linearly_over_its_share_of_training() -> None:
    channel = Channel(coef=0.8, anneal=0.5, adapt=False)
    assert [channel.coefficient(done) for done in (0, 0.25, 0.5, 1)] == [0.8, 0.4, 0, 0]
    assert Channel(coef=0.8, anneal=None, adapt=False).coefficient(1.0) == 0.8


def test_it_goes_to_zero_where_rewards_tell_enough() -> None:
    channel = Channel(anneal=None)
    channel.observe(Seen(hopeless=1.0))
    assert channel.coefficient(0) == 1.0
    for _ in range(30):
        channel.observe(Seen(hopeless=0.0))
    assert channel.coefficient(0) < 0.01


def test_it_goes_to_zero_where_those_who_got_more_fare_no_better() -> None:
    helps, harms = Channel(anneal=None), Channel(anneal=None)
    for channel, products in ((helps, 1.0), (harms, -1.0)):
        channel.observe(Seen(hopeless=1.0, groups=1, products=products, scores=2.0, bonuses=0.5))
        assert channel.coefficient(0) == 1.0, "one group is no evidence"
        for _ in range(9):
            channel.observe(
                Seen(hopeless=1.0, groups=4, products=4 * products, scores=8.0, bonuses=2.0)
            )
    assert helps.coefficient(0) == pytest.approx(1.0)
    assert harms.coefficient(0) == 0.0


def test_old_evidence_is_forgotten_and_the_bonus_gets_another_chance() -> None:
    channel = Channel(anneal=None)
    channel.observe(Seen(hopeless=1.0, groups=20, products=-1.0, scores=1.0, bonuses=1.0))
    assert channel.help == 0.0
    for _ in range(5):
        channel.observe(Seen(hopeless=1.0))
    assert channel.help == 1.0


def test_its_state_survives_as_json() -> None:
    channel, twin = Channel(), Channel()
    twin.restore(json.loads(json.dumps(channel.state())))
    assert twin.coefficient(0.1) == channel.coefficient(0.1)
    for _ in range(9):
        channel.observe(Seen(hopeless=0.7, groups=3, products=0.1, scores=1.0, bonuses=0.2))
    twin.restore(json.loads(json.dumps(channel.state())))
    assert twin.coefficient(0.1) == channel.coefficient(0.1) != 0.8


@pytest.mark.parametrize("state", [None, {}, {"need": "x", "sums": [0, 0, 0, 0]}, {"sums": [1]}])
def test_another_state_is_refused(state: Json) -> None:
    with pytest.raises(ConfigError, match="channel: expected its state"):
        Channel().restore(state)


def test_a_bonus_that_could_outrank_a_success_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"coef \* cap must be below s0=1, .*got 2 \* 0.5"):
        Channel(coef=2.0)
