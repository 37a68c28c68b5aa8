"""A completed group gets its scores: here alone do rewards meet trajectories."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import replace

from agentrl.core.errors import AgentRLError, RewardError
from agentrl.core.protocols import GroupReward, Reward
from agentrl.core.types import Failure, Group, Score, Stop, Trajectory


async def score_group(group: Group, reward: Reward, *, timeout_s: float) -> Group:
    """The group with a score on every sibling that did not fail.

    A reward that raises or is late makes its trajectory a failure (`where="reward"`); one that
    answers None or NaN leaves it unscored. Siblings go on in both cases.
    """
    valid = [i for i, t in enumerate(group.trajectories) if not t.stop.is_failure]
    episodes = [group.trajectories[i] for i in valid]
    if isinstance(reward, GroupReward):
        answers = await _all_at_once(reward, episodes, timeout_s)
    else:
        answers = list(await asyncio.gather(*(_one(reward, t, timeout_s) for t in episodes)))
    scored = list(group.trajectories)
    for i, answer in zip(valid, answers, strict=True):
        scored[i] = _with(scored[i], answer)
    return replace(group, trajectories=tuple(scored))


async def _one(
    reward: Reward, trajectory: Trajectory, timeout_s: float
) -> Score | float | None | Failure:
    try:
        async with asyncio.timeout(timeout_s):
            return await reward(trajectory)
    except TimeoutError:
        return Failure(where="reward", error=f"the reward did not answer within {timeout_s:g} s")
    except Exception as error:  # noqa: BLE001 - the boundary to users' code: counted, never hidden
        return Failure(where="reward", error=f"{type(error).__name__}: {error}")


async def _all_at_once(
    reward: GroupReward, trajectories: Sequence[Trajectory], timeout_s: float
) -> Sequence[Score | float | None | Failure]:
    if not trajectories:
        return []
    try:
        async with asyncio.timeout(timeout_s):
            answers = await reward.score_group(trajectories)
        if len(answers) != len(trajectories):
            raise RewardError(f"expected {len(trajectories)} scores, got {len(answers)}")
    except TimeoutError:
        broken = Failure(where="reward", error=f"the judge did not answer within {timeout_s:g} s")
        return [broken] * len(trajectories)
    except Exception as error:  # noqa: BLE001 - the boundary to users' code: counted, never hidden
        broken = Failure(where="reward", error=f"{type(error).__name__}: {error}")
        return [broken] * len(trajectories)
    return answers


def _with(trajectory: Trajectory, answer: Score | float | None | Failure) -> Trajectory:
    try:
        if isinstance(answer, Failure):
            return replace(trajectory, stop=Stop.ERROR, failure=answer, success=None)
        return replace(trajectory, score=as_score(answer, trajectory))
    except AgentRLError as error:
        failure = Failure(where="reward", error=str(error))
        return replace(trajectory, stop=Stop.ERROR, failure=failure, success=None)


def as_score(answer: object, trajectory: Trajectory) -> Score | None:
    """A reward's answer as a `Score`; None for "cannot tell" and for NaN.

    Raises:
        RewardError: it is no number and no score, or its turns do not match the trajectory's.
    """
    if answer is None:
        return None
    if isinstance(answer, bool | int | float):
        answer = Score(value=float(answer))
    if not isinstance(answer, Score):
        raise RewardError(f"expected a Score, a number or None from the reward, got {answer!r:.200}")
    if answer.turns is not None and len(answer.turns) != len(trajectory.turns):
        raise RewardError(
            f"the reward scored {len(answer.turns)} turns of a trajectory that has "
            f"{len(trajectory.turns)}"
        )
    numbers = (answer.value, *(answer.turns or ()))
    return answer if all(math.isfinite(number) for number in numbers) else None
