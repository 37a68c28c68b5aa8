"""Soft overlong punishment: the worked numbers, and who pays."""

import asyncio
from dataclasses import dataclass, replace

import pytest

from agentrl.core.errors import ConfigError
from agentrl.core.types import Score, Stop, Task, Trajectory, Turn
from agentrl.rewards.exact import Exact
from agentrl.rewards.overlong import Overlong
from agentrl.rewards.success import Success
from support.faulty import Judge


def episode(*lengths: int) -> Trajectory:
    turns = tuple(
        Turn(prompt_ids=(1,), action_ids=(2,) * n, sampler_logprobs=(0.0,) * n, reward=0.5)
        for n in lengths
    )
    return Trajectory(task=Task(id="t", seed=0), turns=turns, stop=Stop.DONE, success=True)


def score(reward: Overlong, trajectory: Trajectory) -> Score | None:
    return asyncio.run(reward(trajectory))


@pytest.mark.parametrize(("n", "penalty"), [(10, 0), (80, 0), (90, -0.5), (100, -1), (130, -1)])
def test_the_penalty_grows_over_the_buffer(n: int, penalty: float) -> None:
    found = score(Overlong(of=Success(), limit=100, buffer=20), episode(n))
    assert found == Score(value=1 + penalty, parts={"success": 1.0, "overlong": penalty})


def test_tokens_count_over_all_turns_and_the_last_one_pays() -> None:
    found = score(Overlong(limit=100, buffer=20, factor=0.2), episode(60, 30))
    assert found is not None
    assert found.turns == pytest.approx((0.5, 0.4))
    assert found.value == pytest.approx(0.9)


def test_a_reward_that_cannot_tell_still_cannot() -> None:
    assert score(Overlong(of=Exact()), episode(3)) is None
    assert score(Overlong(of=Success()), replace(episode(3), success=None)) is None


def test_a_bare_number_is_shaped_too() -> None:
    @dataclass(frozen=True)
    class Three:
        async def __call__(self, trajectory: Trajectory) -> float:
            return 3.0

    assert score(Overlong(of=Three()), episode(3)) == Score(value=3.0, parts={"overlong": 0.0})


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(ConfigError, match="buffer: must be at most limit=10"):
        Overlong(limit=10, buffer=20)
    with pytest.raises(ConfigError, match="of: Judge compares siblings"):
        Overlong(of=Judge())
