"""Episodes wait at the gate with their next turn, and no deadline counts that."""

from __future__ import annotations

import asyncio

import pytest

from agentrl.core.types import Group, Stop
from agentrl.rollout.gate import Gate
from agentrl.rollout.worker import AHEAD, SIBLINGS
from support.envs import EchoEnv
from support.play import engine_agent, right, table, worker


@pytest.mark.parametrize("is_gated", [True, False])
def test_time_at_the_gate_is_not_counted_by_the_deadline_of_the_episode(is_gated: bool) -> None:
    async def play() -> Group:
        env, gate = EchoEnv(length=2), Gate()
        task = env.tasks("train")[0]
        by = worker(env, at=table(deadline_s=0.3))
        play_group = by.one_by_one(
            agent=engine_agent({-1: right(task)}),
            group_size=1,
            label="train",
            gate=gate if is_gated else None,
        )
        gate.shut()
        playing = asyncio.create_task(play_group(task, 0))
        await asyncio.sleep(0.5)
        assert playing.done() is not is_gated
        gate.open()
        group = await playing
        await by.close()
        return group

    [trajectory] = asyncio.run(asyncio.wait_for(play(), 10)).trajectories
    assert trajectory.stop is Stop.DONE
    assert (trajectory.seconds >= 0.5) is is_gated


def test_episodes_ahead_of_the_trainer_have_numbers_of_their_own() -> None:
    """Evaluations are played beside them, and an engine knows an episode by its number."""

    async def play() -> list[int]:
        env = EchoEnv(length=1)
        by, ended = worker(env), list[int]()
        agent = engine_agent({-1: right(env.tasks("train")[0])})
        kept = agent.engine.end

        async def end(episode: int) -> None:
            ended.append(episode)
            await kept(episode)

        agent.engine.end = end  # type: ignore[method-assign]
        play_group = by.one_by_one(agent=agent, group_size=2, label="train")
        for number in (0, 7):
            await play_group(env.tasks("train")[0], number)
        await by.close()
        return sorted(ended)

    first = AHEAD * SIBLINGS
    assert asyncio.run(play()) == [first, first + 1, first + 7 * SIBLINGS, first + 7 * SIBLINGS + 1]
