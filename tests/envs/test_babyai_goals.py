"""Conditions that BabyAI levels can be asked for."""

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrl.envs.babyai import BabyAI


@pytest.fixture
def env() -> BabyAI:
    """A DoorKey level: key, locked door, goal."""
    found = BabyAI(level="DoorKey-5x5", cap=60)
    found.reset(found.tasks("train")[0])
    return found


def things(env: BabyAI) -> dict[str, tuple[int, int]]:
    """Where each kind of thing is."""
    game = env._game
    assert game is not None
    cells = enumerate(game.grid.grid)
    return {c.type: (i % game.width, i // game.width) for i, c in cells if c is not None}


def way(env: BabyAI, goal: str) -> list[str]:
    """The fewest actions that make a condition true; the env stands where it stood."""
    begin = env.snapshot()
    queue, seen = deque([(begin, list[str]())]), {env.state_key()}
    while queue:
        here, actions = queue.popleft()
        env.restore(here)
        for action in env.legal_actions():
            env.restore(here)
            step = env.step(action)
            if env.check(goal):
                env.restore(begin)
                return [*actions, action]
            if not step.terminated and env.state_key() not in seen:
                seen.add(env.state_key())
                queue.append((env.snapshot(), [*actions, action]))
    raise AssertionError(f"nothing leads to {goal}")


def test_the_shortest_way_makes_the_conditions_true_one_after_another(env: BabyAI) -> None:
    at, game = things(env), env._game
    assert game is not None
    key = game.grid.get(*at["key"])
    assert key is not None
    colour, (x, y), (gx, gy) = key.color, at["key"], at["goal"]
    goals = {
        "front": f"front {colour} key",
        "carrying": f"carrying {colour} key",
        "touched": f"touched {x} {y}",
        "open": f"open {colour} door",
        "goal": "reached goal",
        "at": f"at {gx} {gy}",
    }
    first: dict[str, int] = {}
    assert not any(env.check(goal) for name, goal in goals.items() if name != "front")
    assert env.check("carrying nothing") is env.check("locked door") is True
    for turn, action in enumerate(way(env, "reached goal")):
        step = env.step(action)
        for name, goal in goals.items():
            if env.check(goal) and name not in first:
                first[name] = turn
    assert step.terminated
    assert first["carrying"] == first["touched"] < first["open"] < first["goal"] == first["at"]
    assert env.check("reached goal") is True, "it can be asked after the end"
    assert env.check("closed door") is env.check("locked door") is False


def test_asking_changes_nothing_and_holds_after_a_restore(env: BabyAI) -> None:
    x, y = things(env)["key"]
    saved, key = env.snapshot(), env.state_key()
    for goal in (f"touched {x} {y}", "at 1 1", "open door", "front box"):
        assert env.check(goal) in (True, False)
    assert env.state_key() == key
    for action in way(env, "carrying key"):
        env.step(action)
    assert env.check(f"touched {x} {y}") is True
    env.restore(saved)
    assert env.check(f"touched {x} {y}") is False


@pytest.mark.parametrize(
    "goal",
    ["", "win", "at 99 99", "at -1 2", "at 1", "carrying sword", "at 1 1 or 1", "never", "x" * 999],
)
def test_what_is_no_condition_cannot_be_told(env: BabyAI, goal: str) -> None:
    assert env.check(goal) is None


@given(st.text(max_size=60))
def test_any_text_may_be_asked(goal: str) -> None:
    env = BabyAI(level="DoorKey-5x5")
    assert env.check(goal) is None, "no level has begun"
