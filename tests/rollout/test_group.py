"""Rewards meet trajectories: whatever a reward does, its siblings get their scores."""

import asyncio
import math
import time
from dataclasses import dataclass, replace

import pytest

from agentrl.core.protocols import GroupReward, Reward
from agentrl.core.types import Failure, Group, Score, Stop, Task, Trajectory, Turn
from agentrl.rewards.env import EnvReward
from agentrl.rewards.success import Success
from agentrl.rollout.group import score_group
from agentrl.train.prepare import usable
from support.faulty import BadReward, Judge

TASK = Task(id="group/0", seed=0)


def episode(reward: float, *, success: bool) -> Trajectory:
    turn = Turn(prompt_ids=(1,), action_ids=(2,), sampler_logprobs=(-1.0,), reward=reward)
    return Trajectory(task=TASK, turns=(turn, turn), stop=Stop.DONE, success=success)


BROKEN = Trajectory(
    task=TASK, turns=(), stop=Stop.ERROR, failure=Failure(where="env", error="it broke")
)
GROUP = Group(
    task=TASK,
    trajectories=(
        episode(0.5, success=True),
        episode(0.0, success=False),
        BROKEN,
        episode(0.25, success=True),
    ),
)


def scored(reward: Reward, group: Group = GROUP, timeout_s: float = 5.0) -> tuple[Trajectory, ...]:
    return asyncio.run(score_group(group, reward, timeout_s=timeout_s)).trajectories


def values(trajectories: tuple[Trajectory, ...]) -> list[float | None]:
    return [t.score.value if t.score else None for t in trajectories]


def test_the_env_s_reward_is_the_sum_of_its_turns_and_the_turns_themselves() -> None:
    first, _, broken, _ = scored(EnvReward())
    assert first.score == Score(value=1.0, turns=(0.5, 0.5), parts={"env": 1.0})
    assert broken == BROKEN


def test_success_is_worth_one_and_silence_is_no_verdict() -> None:
    assert values(scored(Success())) == [1.0, 0.0, None, 1.0]
    silent = Group(task=TASK, trajectories=(replace(episode(1.0, success=True), success=None),))
    assert values(scored(Success(), silent)) == [None]


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        (ValueError("no such model"), "ValueError: no such model"),
        (TimeoutError("the judge's own"), "TimeoutError: the judge's own"),
        ("1.0", "expected a Score, a number or None from the reward, got '1.0'"),
        ([1.0], "got [1.0]"),
        (Score(value="1"), "expected numbers in the reward's Score, got '1'"),  # type: ignore[arg-type]
        (Score(value=1.0, turns=(1.0, None)), "got None"),  # type: ignore[arg-type]
        (Score(value=1.0, turns=(1.0,)), "scored 1 turns of a trajectory that has 2"),
        (10**400, "too large"),
    ],
)
def test_a_reward_that_fails_makes_a_failure_and_its_siblings_are_scored(
    answer: object, complaint: str
) -> None:
    trajectories = scored(BadReward(answer=answer))
    assert values(trajectories) == [1.0, None, None, 0.5]
    bad = trajectories[1]
    assert (bad.stop, bad.success) == (Stop.ERROR, None)
    assert bad.failure is not None
    assert bad.failure.where == "reward"
    assert complaint in bad.failure.error
    _, metrics = usable([replace(GROUP, trajectories=trajectories)])
    assert (metrics["episodes/failed_reward"].total, metrics["episodes/failed_env"].total) == (1, 1)


def test_a_reward_that_hangs_is_cut_at_its_deadline() -> None:
    began = time.monotonic()
    trajectories = scored(BadReward(answer="hang"), timeout_s=0.2)
    assert time.monotonic() - began < 2
    assert values(trajectories) == [1.0, None, None, 0.5]
    assert trajectories[1].stop is Stop.TIMEOUT
    assert trajectories[1].failure == Failure(
        where="reward", error="the reward did not answer within 0.2 s"
    )


@pytest.mark.parametrize(
    "answer",
    [None, math.nan, math.inf, Score(value=math.nan), Score(value=1.0, turns=(math.nan, 0.0))],
)
def test_none_and_nan_are_no_verdict_and_no_failure(answer: object) -> None:
    trajectories = scored(BadReward(answer=answer))
    assert values(trajectories) == [1.0, None, None, 0.5]
    assert (trajectories[1].stop, trajectories[1].failure) == (Stop.DONE, None)
    group = replace(GROUP, trajectories=trajectories)
    assert group.scored == (0, 3)
    kept, metrics = usable([group])
    assert kept == [group]
    assert metrics["episodes/unscored"].total == 1


@pytest.mark.parametrize("answer", [1, True, 1.0, Score(value=1)])
def test_any_number_is_a_score(answer: object) -> None:
    score = scored(BadReward(answer=answer))[1].score
    assert score == Score(value=1.0)
    assert type(score.value) is float


def test_a_judge_sees_the_valid_siblings_only_and_is_asked_once() -> None:
    assert isinstance(Judge(), GroupReward)
    assert values(scored(Judge())) == [2.0, 0.0, None, 1.0]


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        (ValueError("no such model"), "ValueError: no such model"),
        ([1.0, 2.0], "expected 3 scores, got 2"),
        (3.0, "TypeError"),
    ],
)
def test_a_judge_that_fails_fails_all_that_it_judged(answer: object, complaint: str) -> None:
    trajectories = scored(Judge(answer=answer))
    assert values(trajectories) == [None] * 4
    assert [t.failure.where for t in trajectories if t.failure] == [
        "reward",
        "reward",
        "env",
        "reward",
    ]
    assert complaint in trajectories[0].failure.error  # type: ignore[union-attr]
    assert trajectories[2] == BROKEN


def test_a_judge_that_hangs_is_cut_and_one_nan_of_its_answers_spoils_one_sibling() -> None:
    hung = scored(Judge(answer="hang"), timeout_s=0.1)
    assert [t.stop for t in hung] == [Stop.TIMEOUT, Stop.TIMEOUT, Stop.ERROR, Stop.TIMEOUT]
    assert values(scored(Judge(answer=[1.0, math.nan, 2.0]))) == [1.0, None, None, 2.0]
    assert values(scored(Judge(answer=["a", 1.0, None]))) == [None, 1.0, None, None]


@pytest.mark.parametrize("reward", [EnvReward(), Judge(answer=[1.0, 2.0, 3.0, 4.0])])
def test_a_greedy_episode_is_scored_like_a_sibling_and_is_none(reward: Reward) -> None:
    group = replace(GROUP, greedy=episode(1.0, success=True))
    found = asyncio.run(score_group(group, reward, timeout_s=5.0))
    assert len(found.trajectories) == len(GROUP.trajectories)
    assert found.greedy is not None
    assert found.greedy.score is not None
    assert found.greedy.score.value == (2.0 if isinstance(reward, EnvReward) else 4.0)
    broken = asyncio.run(score_group(replace(group, greedy=BROKEN), reward, timeout_s=5.0))
    assert broken.greedy == BROKEN


def test_a_group_of_failures_asks_no_judge() -> None:
    @dataclass(frozen=True)
    class Never(Judge):
        async def score_group(self, trajectories: object) -> list[float]:
            raise AssertionError("asked")

    assert scored(Never(), Group(task=TASK, trajectories=(BROKEN, BROKEN))) == (BROKEN, BROKEN)


def test_rewards_are_asked_side_by_side() -> None:
    @dataclass(frozen=True)
    class Slow:
        async def __call__(self, trajectory: Trajectory) -> float:
            await asyncio.sleep(0.5)
            return 1.0

    began = time.monotonic()
    scored(Slow())
    assert time.monotonic() - began < 1.5
