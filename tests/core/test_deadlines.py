"""Deadlines, and what does not count for them."""

import asyncio
import time

import pytest

from agentrl.core.deadlines import deadline, standstill


def test_a_deadline_cuts_what_takes_longer() -> None:
    async def run() -> None:
        async with deadline(0.05) as limit:
            try:
                await asyncio.sleep(5)
            finally:
                assert limit.expired()

    began = time.monotonic()
    with pytest.raises(TimeoutError):
        asyncio.run(run())
    assert time.monotonic() - began < 2


def test_a_standstill_counts_for_none_of_the_deadlines_round_it() -> None:
    async def run() -> None:
        async with deadline(0.2), deadline(0.1):
            with standstill():
                await asyncio.sleep(0.4)
            await asyncio.sleep(0.02)

    asyncio.run(run())


def test_after_a_standstill_the_rest_of_the_time_is_left() -> None:
    async def run() -> None:
        async with deadline(0.2):
            with standstill():
                await asyncio.sleep(0.3)
            await asyncio.sleep(5)

    began = time.monotonic()
    with pytest.raises(TimeoutError):
        asyncio.run(run())
    assert 0.45 < time.monotonic() - began < 2


def test_another_task_s_deadline_runs_on() -> None:
    async def waits() -> None:
        async with deadline(5.0):
            with standstill():
                await asyncio.sleep(0.3)

    async def other() -> None:
        async with deadline(0.1):
            await asyncio.sleep(5)

    async def run() -> tuple[object, object]:
        return await asyncio.gather(waits(), other(), return_exceptions=True)

    first, second = asyncio.run(run())
    assert first is None
    assert isinstance(second, TimeoutError)


def test_without_deadlines_a_standstill_is_nothing() -> None:
    async def run() -> None:
        with standstill():
            await asyncio.sleep(0)

    asyncio.run(run())
