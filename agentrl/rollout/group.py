"""A completed group gets its scores: here alone do rewards meet trajectories."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from agentrl.core.errors import RewardError
from agentrl.core.protocols import GroupReward, Reward
from agentrl.core.types import Failure, Group, Score, Stop, Trajectory


async def score_group(group: Group, reward: Reward, *, timeout_s: float) -> Group:
    """The group with a score on every sibling that did not fail, and on its greedy episode; a
    judge sees that one as the last sibling.

    A reward that raises or is late makes its trajectory a failure (`where="reward"`); one that
    answers None or NaN leaves it unscored. Siblings go on in both cases.
    """
    played = [*group.trajectories, *([group.greedy] if group.greedy is not None else [])]
    valid = [i for i, t in enumerate(played) if not t.stop.is_failure]
    episodes = [played[i] for i in valid]
    if isinstance(reward, GroupReward):
        answers = await _all_at_once(reward, episodes, timeout_s)
    else:
        answers = list(await asyncio.gather(*(_one(reward, t, timeout_s) for t in episodes)))
    for i, answer in zip(valid, answers, strict=True):
        played[i] = _with(played[i], answer)
    greedy = played.pop() if group.greedy is not None else None
    return replace(group, trajectories=tuple(played), greedy=greedy)


class _Broken(NamedTuple):
    """A reward that raised, was late or answered nonsense."""

    stop: Stop
    error: str


async def _one(reward: Reward, trajectory: Trajectory, timeout_s: float) -> object:
    try:
        async with asyncio.timeout(timeout_s) as deadline:
            return await reward(trajectory)
    except Exception as error:  # noqa: BLE001 - the boundary to users' code: counted, never hidden
        return _broken(error, deadline, timeout_s)


async def _all_at_once(
    reward: GroupReward, trajectories: Sequence[Trajectory], timeout_s: float
) -> Sequence[object]:
    if not trajectories:
        return []
    try:
        async with asyncio.timeout(timeout_s) as deadline:
            answers = list(await reward.score_group(trajectories))
        if len(answers) != len(trajectories):
            raise RewardError(f"expected {len(trajectories)} scores, got {len(answers)}")
    except Exception as error:  # noqa: BLE001 - the boundary to users' code: counted, never hidden
        return [_broken(error, deadline, timeout_s)] * len(trajectories)
    return answers


def _broken(error: Exception, deadline: asyncio.Timeout, timeout_s: float) -> _Broken:
    if deadline.expired() and isinstance(error, TimeoutError):
        return _Broken(Stop.TIMEOUT, f"the reward did not answer within {timeout_s:g} s")
    return _Broken(Stop.ERROR, f"{type(error).__name__}: {error}")


def _with(trajectory: Trajectory, answer: object) -> Trajectory:
    if not isinstance(answer, _Broken):
        try:
            return replace(trajectory, score=as_score(answer, trajectory))
        except (RewardError, OverflowError) as error:  # a Python int may be too large for a float
            answer = _Broken(Stop.ERROR, str(error))
    failure = Failure(where="reward", error=answer.error)
    return replace(trajectory, stop=answer.stop, failure=failure, success=None)


def as_score(answer: object, trajectory: Trajectory) -> Score | None:
    """A reward's answer as a `Score`; None for "cannot tell" and for NaN.

    Raises:
        RewardError: it is no number and no score, or its turns do not match the trajectory's.
    """
    if answer is None:
        return None
    if isinstance(answer, int | float):
        answer = Score(value=answer)
    if not isinstance(answer, Score):
        raise RewardError(
            f"expected a Score, a number or None from the reward, got {answer!r:.200}"
        )
    if answer.turns is not None and len(answer.turns) != len(trajectory.turns):
        raise RewardError(
            f"the reward scored {len(answer.turns)} turns of a trajectory that has "
            f"{len(trajectory.turns)}"
        )
    numbers = (answer.value, *(answer.turns or ()))
    strange = [number for number in numbers if not isinstance(number, int | float)]
    if strange:
        raise RewardError(f"expected numbers in the reward's Score, got {strange[0]!r:.200}")
    return replace(answer, value=float(answer.value)) if all(map(math.isfinite, numbers)) else None


def commonest_failure(groups: Sequence[Group]) -> str:
    """Which boundary failed most often, how often, and what it said; empty if none did."""
    episodes = [t for group in groups for t in group.trajectories]
    failures = Counter(t.failure for t in episodes if t.failure is not None)
    if not failures:
        return ""
    failure, count = failures.most_common(1)[0]
    return f"the {failure.where} failed in {count} of {len(episodes)} episodes: {failure.error}"
