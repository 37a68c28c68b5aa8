import asyncio
from dataclasses import replace
from math import nan

import pytest

from agentrl.core.errors import ConfigError
from agentrl.core.protocols import Reward
from agentrl.core.registry import find, names
from agentrl.core.types import Score, Stop, Task, Trajectory, Turn
from agentrl.rewards.exact import Exact
from agentrl.rewards.weighted import Weighted


def turn(reward: float, action: str) -> Turn:
    return Turn(
        prompt_ids=(1,), action_ids=(2,), sampler_logprobs=(-0.1,), reward=reward, action=action
    )


SOLVED = Trajectory(
    task=Task(
        id="t",
        seed=0,
        answer="Blue",
        data={"gold": [{"name": "look", "arguments": {}}], "steps": ["look"]},
    ),
    turns=(turn(0.25, "look"), turn(0.5, " blue ")),
    stop=Stop.DONE,
    success=True,
)


def score(reward: Reward, trajectory: Trajectory) -> Score | float | None:
    return asyncio.run(reward(trajectory))


@pytest.mark.parametrize("name", names("reward"))
def test_every_reward_is_deterministic_and_leaves_the_trajectory_alone(name: str) -> None:
    reward = find("reward", name)()
    before = replace(SOLVED)
    assert score(reward, SOLVED) == score(reward, SOLVED)
    assert before == SOLVED


@pytest.mark.parametrize("name", names("reward"))
def test_every_reward_survives_an_episode_without_turns(name: str) -> None:
    empty = replace(SOLVED, turns=(), stop=Stop.MAX_TOKENS, success=False)
    answer = score(find("reward", name)(), empty)
    assert isinstance(answer, Score)
    assert answer.value == 0.0


@pytest.mark.parametrize(
    ("name", "value", "turns"),
    [("env", 0.75, (0.25, 0.5)), ("success", 1.0, None), ("exact", 1.0, None)],
)
def test_the_value_of_a_solved_episode(
    name: str, value: float, turns: tuple[float, ...] | None
) -> None:
    assert score(find("reward", name)(), SOLVED) == Score(
        value=value, turns=turns, parts={name: value}
    )


def test_exact_minds_case_only_when_asked_to() -> None:
    assert score(Exact(casefold=False), SOLVED) == Score(value=0.0, parts={"exact": 0.0})


@pytest.mark.parametrize("name", ["exact", "success"])
def test_what_cannot_be_told_is_none(name: str) -> None:
    unknown = replace(SOLVED, task=Task(id="t", seed=0), success=None)
    assert score(find("reward", name)(), unknown) is None


def test_weights_multiply_parts_and_turns() -> None:
    both = Weighted(parts={"env": 2.0, "success": 0.5})
    assert score(both, SOLVED) == Score(value=2.0, parts={"env": 0.75, "success": 1.0})
    assert score(Weighted(parts={"env": 2.0}), SOLVED) == Score(
        value=1.5, turns=(0.5, 1.0), parts={"env": 0.75}
    )


def test_one_part_that_cannot_tell_makes_the_sum_none() -> None:
    unknown = replace(SOLVED, success=None)
    assert score(Weighted(parts={"env": 1.0, "success": 1.0}), unknown) is None


def test_a_nan_from_the_env_stays_visible() -> None:
    lost = replace(SOLVED, turns=(turn(nan, "look"),))
    answer = score(Weighted(), lost)
    assert isinstance(answer, Score)
    assert answer.value != answer.value


def test_a_weighted_sum_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="expected rewards other than 'weighted'"):
        Weighted(parts={})
    with pytest.raises(ConfigError, match="did you mean 'success'"):
        Weighted(parts={"sucess": 1.0})
