"""The barrier opens when every live episode waits, in the order of their numbers."""

import asyncio
from collections.abc import Awaitable, Callable
from random import Random

import pytest

from agentrl.rollout.lockstep import Lockstep


def run(scene: Callable[[Lockstep, list[int]], Awaitable[None]]) -> list[int]:
    """Play a scene; it gets a barrier and a list for the episodes that pass it."""
    passed: list[int] = []
    asyncio.run(asyncio.wait_for(scene(Lockstep(), passed), 5))
    return passed


async def asks(barrier: Lockstep, episode: int, passed: list[int]) -> None:
    await barrier.wait(episode)
    passed.append(episode)


def test_nobody_passes_before_every_live_episode_has_asked() -> None:
    async def scene(barrier: Lockstep, passed: list[int]) -> None:
        for episode in (1, 2, 3):
            barrier.enter(episode)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(asks(barrier, 3, passed))
            tasks.create_task(asks(barrier, 1, passed))
            await asyncio.sleep(0.01)
            assert passed == []
            tasks.create_task(asks(barrier, 2, passed))

    assert run(scene) == [1, 2, 3], "in the order of their numbers, not of their asking"


def test_an_episode_that_leaves_lets_the_others_pass() -> None:
    async def scene(barrier: Lockstep, passed: list[int]) -> None:
        for episode in (1, 2):
            barrier.enter(episode)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(asks(barrier, 1, passed))
            await asyncio.sleep(0.01)
            assert passed == []
            barrier.leave(2)

    assert run(scene) == [1]


def test_an_episode_that_leaves_while_it_waits_holds_up_nobody() -> None:
    async def scene(barrier: Lockstep, passed: list[int]) -> None:
        for episode in (1, 2):
            barrier.enter(episode)
        waiting = asyncio.ensure_future(asks(barrier, 1, passed))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        barrier.leave(1)
        await asks(barrier, 2, passed)

    assert run(scene) == [2]


def test_who_never_entered_passes_at_once() -> None:
    async def scene(barrier: Lockstep, passed: list[int]) -> None:
        barrier.enter(1)
        await asks(barrier, 7, passed)

    assert run(scene) == [7]


def test_rounds_are_the_same_whatever_the_time_between_them() -> None:
    async def scene(barrier: Lockstep, passed: list[int]) -> None:
        async def episode(number: int) -> None:
            for _ in range(1 + number % 3):
                await asyncio.sleep(Random().uniform(0, 0.01))
                await asks(barrier, number, passed)
            barrier.leave(number)

        for number in range(6):
            barrier.enter(number)
        await asyncio.gather(*(episode(number) for number in range(6)))

    assert run(scene) == [0, 1, 2, 3, 4, 5, 1, 2, 4, 5, 2, 5]
