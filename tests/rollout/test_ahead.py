"""Groups in flight: begun as the books allow, waited for, dropped, kept over a resume."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest

from agentrl.core.errors import EngineError, TrainingError
from agentrl.core.types import Finish, Group, Stop, Task, Trajectory, Turn
from agentrl.rollout.ahead import Ahead
from agentrl.rollout.gate import Gate
from agentrl.rollout.staleness import Ledger


def group_of(task: Task, version: int) -> Group:
    turn = Turn(
        prompt_ids=(1,),
        action_ids=(2, 3),
        sampler_logprobs=(0.0, 0.0),
        versions=((version, 1), (version + 1, 1)),
        finish=Finish.EOS,
    )
    return Group(task=task, trajectories=(Trajectory(task=task, turns=(turn,), stop=Stop.DONE),))


@dataclass(kw_only=True)
class Hand:
    """Plays groups when the test says so."""

    begun: list[int] = field(default_factory=list)
    cancelled: list[int] = field(default_factory=list)
    answers: dict[int, asyncio.Future[Group]] = field(default_factory=dict)

    async def __call__(self, task: Task, number: int) -> Group:
        self.begun.append(number)
        self.answers[number] = asyncio.get_running_loop().create_future()
        try:
            return await self.answers[number]
        except asyncio.CancelledError:
            self.cancelled.append(number)
            raise

    async def finish(self, *numbers: int, version: int = 0) -> None:
        for number in numbers:
            self.answers[number].set_result(group_of(task_of(number), version))
        await asyncio.sleep(0.001)


def task_of(number: int) -> Task:
    return Task(id=f"t{number}", seed=number)


def ahead_of(hand: Hand, **settings: object) -> Ahead:
    ledger = Ledger(per_step=2, max_staleness=1, total=100, **settings)  # type: ignore[arg-type]
    return Ahead(ledger=ledger, play=hand, task_of=task_of)


def test_a_step_takes_the_groups_that_are_complete_and_leaves_the_others_in_flight() -> None:
    async def play() -> None:
        hand = Hand()
        ahead = ahead_of(hand)
        ahead.begin()
        await asyncio.sleep(0.001)
        assert hand.begun == [0, 1, 2, 3]
        asking = asyncio.create_task(ahead.take())
        await hand.finish(3)
        assert not asking.done()
        await hand.finish(1)
        assert [g.task.id for g in await asking] == ["t3", "t1"]
        await ahead.advance(1)
        await asyncio.sleep(0.001)
        assert hand.begun == [0, 1, 2, 3, 4, 5]
        asking = asyncio.create_task(ahead.take())
        await hand.finish(4, 5, version=1)
        assert not asking.done(), "0 and 2 are of version 0 and cannot wait for another step"
        await hand.finish(0, 2)
        assert [g.task.id for g in await asking] == ["t0", "t2"]
        await ahead.close()

    asyncio.run(asyncio.wait_for(play(), 10))


def test_late_groups_are_cancelled_and_replaced_where_they_are_dropped() -> None:
    async def play() -> None:
        hand = Hand()
        ahead = ahead_of(hand, late="drop")
        ahead.begin()
        await asyncio.sleep(0.001)
        for version, done in ((0, (2, 3)), (1, (4, 5))):
            asking = asyncio.create_task(ahead.take())
            await hand.finish(*done, version=version)
            assert len(await asking) == 2
            await ahead.advance(version + 1)
            await asyncio.sleep(0.001)
        asking = asyncio.create_task(ahead.take())
        await asyncio.sleep(0.001)
        assert hand.cancelled == [0, 1]
        assert hand.begun == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
        await hand.finish(8, 9, version=2)
        assert [g.task.id for g in await asking] == ["t8", "t9"]
        assert ahead.ledger.dropped == 2
        await ahead.close()

    asyncio.run(asyncio.wait_for(play(), 10))


def test_what_breaks_a_group_beyond_a_failed_episode_ends_the_run() -> None:
    async def play() -> None:
        hand = Hand()
        ahead = ahead_of(hand)
        ahead.begin()
        await asyncio.sleep(0.001)
        asking = asyncio.create_task(ahead.take())
        hand.answers[1].set_exception(EngineError("the engine is gone"))
        with pytest.raises(EngineError, match="the engine is gone"):
            await asking
        await ahead.close()
        assert sorted(hand.cancelled) == [0, 2, 3]

    asyncio.run(asyncio.wait_for(play(), 10))


def test_after_a_resume_complete_groups_are_kept_and_those_in_flight_begin_anew() -> None:
    async def play() -> None:
        hand = Hand()
        ahead = ahead_of(hand)
        ahead.begin()
        await asyncio.sleep(0.001)
        asking = asyncio.create_task(ahead.take())
        await hand.finish(0, 1, 3)
        taken = [g.task.id for g in await asking]
        await ahead.advance(1)
        state, kept = ahead.state(), [ahead.complete[n] for n in ahead.ledger.back]
        await ahead.close()

        second = Hand()
        again = ahead_of(second)
        again.restore(state, 1, kept)
        again.begin()
        await asyncio.sleep(0.001)
        assert second.begun == [2, 4, 5]
        asking = asyncio.create_task(again.take())
        await second.finish(2, version=1)
        assert taken + [g.task.id for g in await asking] == ["t0", "t1", "t3", "t2"]
        await again.close()
        with pytest.raises(TrainingError, match="expected 1 complete groups, got 0"):
            ahead_of(Hand()).restore(state, 1, [])

    asyncio.run(asyncio.wait_for(play(), 10))


def test_the_gate_is_shut_while_the_trainer_trains() -> None:
    async def play() -> None:
        hand, gate = Hand(), Gate()
        ahead = ahead_of(hand)
        ahead.gate = gate
        ahead.begin()
        await asyncio.sleep(0.001)
        asking = asyncio.create_task(ahead.take())
        await hand.finish(0, 1)
        await asking
        passing = asyncio.create_task(gate.wait())
        await asyncio.sleep(0.02)
        assert not passing.done()
        await ahead.advance(1)
        assert await passing >= 0.02
        await ahead.close()

    asyncio.run(asyncio.wait_for(play(), 10))
