"""Dynamic sampling: further tasks are played while groups have nothing to teach."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, TypeVar, cast

import pytest

from agentrl.core.protocols import Share
from agentrl.core.saved import Saved
from agentrl.core.types import Fork, Group, Opening, Score, Start, Stop, Task, Trajectory
from agentrl.rollout.share import Solo
from agentrl.rollout.strategies.dynamic import Dynamic
from agentrl.rollout.worker import SIBLINGS
from agentrl.text.renderer import Plain
from support import EchoEnv
from support.play import engine_agent, renderer, right, worker, wrong

T = TypeVar("T")


def task(name: str) -> Task:
    return Task(id=name, seed=0)


@dataclass
class Scripted:
    """A `Play` whose groups are informative if their task's name says so."""

    batches: dict[int, list[str]] = field(default_factory=dict)
    group_size: int = 2
    played: list[tuple[str, int, int]] = field(default_factory=list)

    @property
    def renderer(self) -> Plain:
        return renderer()

    def more(self, batch: int) -> Sequence[Task]:
        return [task(name) for name in self.batches.get(batch, [])]

    def start(self, task: Task) -> Start:
        return Start()

    async def __call__(
        self,
        task: Task,
        start: Start,
        *,
        group: int,
        sibling: int,
        fork: tuple[Trajectory, Fork] | None = None,
        opening: Opening | None = None,
        stages: dict[int, Saved] | None = None,
    ) -> Trajectory:
        self.played.append((task.id, group, sibling))
        value = float(sibling) if task.id.startswith("mixed") else 1.0
        return Trajectory(task=task, turns=(), stop=Stop.DONE, score=Score(value=value))

    async def greedy(self, task: Task, start: Start, *, group: int) -> None:
        return None

    async def score(self, group: Group) -> Group:
        return group


def collected(play: Scripted, first: list[str], **settings: int) -> list[str]:
    groups = asyncio.run(Dynamic(**settings).collect([task(name) for name in first], play))
    return [group.task.id for group in groups]


def test_it_plays_on_until_enough_groups_differ_and_no_further() -> None:
    play = Scripted(batches={1: ["flat3", "mixed2", "x"], 2: ["mixed3", "mixed4"], 3: ["x"]})
    assert collected(play, ["flat1", "mixed1", "flat2"]) == [
        "flat1",
        "mixed1",
        "flat2",
        "flat3",  # two were missing, so two are played of the first further batch
        "mixed2",
        "mixed3",
    ]


def test_no_two_groups_share_a_number_so_no_two_episodes_share_a_seed() -> None:
    play = Scripted(batches={1: ["flat"], 2: ["flat"], 3: ["mixed"]})
    collected(play, ["flat", "mixed"])
    places = [(group, sibling) for _, group, sibling in play.played]
    assert sorted(places) == [(g, i) for g in range(5) for i in range(2)]


def test_it_goes_on_with_what_there_is_after_the_last_batch() -> None:
    play = Scripted(batches={number: ["flat", "flat"] for number in range(1, 50)})
    assert len(collected(play, ["mixed", "flat"], max_gen_batches=4)) == 2 + 3
    assert len(collected(Scripted(), ["flat", "flat"])) == 2, "evaluations have no further tasks"


def test_enough_at_once_is_one_batch() -> None:
    assert collected(Scripted(batches={1: ["x"]}), ["mixed1", "mixed2"]) == ["mixed1", "mixed2"]


@dataclass(frozen=True)
class Second:
    """The second of two processes, whose sibling process plays nothing."""

    rank: ClassVar[int] = 1
    world: ClassVar[int] = 2

    def exchange(self, value: T) -> list[T]:
        return [cast("T", []), value]


@pytest.mark.parametrize("share", [Solo(), Second()])
def test_a_worker_gives_each_process_its_share_of_the_further_tasks(share: Share) -> None:
    tasks = EchoEnv(length=2).tasks("train")[:6]
    own, further = tasks[share.rank], tasks[2 + share.rank]
    # The siblings of the first group are equal, so one more task is asked for.
    numbers = [(share.rank + turn * share.world) * SIBLINGS for turn in range(2)]
    replies = {numbers[0]: right(own), numbers[0] + 1: right(own)}
    replies |= {numbers[1]: right(further), numbers[1] + 1: wrong(further)}
    by = worker(EchoEnv(length=2), strategy=Dynamic())
    asked: list[int] = []

    def more(batch: int) -> list[Task]:
        asked.append(batch)
        return list(tasks[2:6])

    async def whole() -> list[Group]:
        try:
            return await by.collect(
                tasks[: share.world],
                agent=engine_agent(replies),
                group_size=2,
                label="train",
                share=share,
                more=more,
            )
        finally:
            await by.close()

    groups = asyncio.run(whole())
    assert [group.task for group in groups] == [own, further]
    assert [len(set(group.values)) for group in groups] == [1, 2]
    assert asked == [1]
