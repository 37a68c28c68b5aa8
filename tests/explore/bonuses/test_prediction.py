"""What is foreseen is worth less."""

import json
from dataclasses import replace

import pytest

from agentrl.core.errors import ConfigError
from agentrl.core.types import Trajectory
from agentrl.explore.bonuses.prediction import PredictionError
from support.walks import walk, walks


def turned(action: str, after: str) -> Trajectory:
    episode = walk("a", heard=[after], opening="a locked door is here")
    return replace(episode, turns=(replace(episode.turns[0], action=action),))


def test_what_came_before_is_foreseen_and_another_outcome_is_not() -> None:
    bonus = PredictionError()
    group = walks(episodes=[turned("open", "the door is open now"), turned("wait", "night falls")])
    assert bonus.rate([group]) == [[[1.0], [1.0]]]
    for _ in range(10):
        bonus.observe([group])
    [[[known], [other]]] = bonus.rate([group])
    assert known < 0.01
    assert other < 0.01
    [[[surprise], [new]]] = bonus.rate(
        [walks(episodes=[turned("open", "night falls"), turned("sing", "a bird answers")])]
    )
    assert surprise == 1.0
    assert new > 0.5


def test_its_state_survives_as_json() -> None:
    bonus, twin = PredictionError(), PredictionError()
    group = walks(episodes=[turned("open", "the door is open now")])
    bonus.observe([group])
    twin.restore(json.loads(json.dumps(bonus.state())))
    assert twin.rate([group]) == bonus.rate([group]) != [[[1.0]]]
    with pytest.raises(ConfigError, match="bonus: expected the state of prediction"):
        twin.restore(3)
