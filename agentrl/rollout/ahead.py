"""Rollouts that run ahead of the trainer: groups are begun as the books allow (`staleness.py`), and
a step trains on those that are complete.

Everything here runs in the event loop of the rollouts; the trainer asks for a step's groups with
`take` and tells of its new weights with `advance`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, cast

from agentrl.core.errors import TrainingError
from agentrl.core.types import Group, Json, Task
from agentrl.rollout.gate import Gate
from agentrl.rollout.staleness import Ledger

logger = logging.getLogger(__name__)

CLOSING_S = 30.0
"""How long groups that are given up may take to end."""


class PlayGroup(Protocol):
    """Plays one group of a task; `number` is the group's."""

    async def __call__(self, task: Task, number: int) -> Group:
        """The group, scored."""
        ...


@dataclass(kw_only=True)
class Ahead:
    """The groups in flight, and those that wait to be trained on."""

    ledger: Ledger
    play: PlayGroup
    task_of: Callable[[int], Task]
    """The task of a group, by the group's number."""
    gate: Gate | None = None
    """Shut between `take` and `advance`, so that the engine rests while the trainer trains."""
    complete: dict[int, Group] = field(default_factory=dict)
    _running: dict[int, asyncio.Task[None]] = field(default_factory=dict, init=False)
    _changed: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    _broken: BaseException | None = field(default=None, init=False)

    def begin(self) -> None:
        """Play what is out: after a resume, the groups that were in flight begin anew."""
        for number in list(self.ledger.out):
            self._start(number)
        self._admit()

    def _admit(self) -> None:
        for number in self.ledger.admit():
            self._start(number)

    def _start(self, number: int) -> None:
        name = f"group {number}"
        self._running[number] = asyncio.create_task(self._played(number), name=name)

    async def _played(self, number: int) -> None:
        try:
            group = await self.play(self.task_of(number), number)
            if number not in self.ledger.out:  # it was dropped, and counted, at this very moment
                return
            self.complete[number] = group
            self.ledger.complete(number, oldest_version(group, self.ledger.out[number]))
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - it ends the run, in `take`
            self._broken = self._broken or error
        finally:
            self._running.pop(number, None)
            self._changed.set()

    async def take(self) -> list[Group]:
        """The groups of the trainer's next step, none of them staler than the bound.

        Raises:
            AgentRLError: what broke a group's play beyond a failed episode.
        """
        for number in self.ledger.drop_late():
            self.complete.pop(number, None)
            if number in self._running:
                self._running.pop(number).cancel()
        self._admit()
        while self._broken is None and not self.ledger.ready:
            self._changed.clear()
            await self._changed.wait()
        if self._broken is not None:
            raise self._broken
        if self.gate is not None:
            self.gate.shut()
        return [self.complete.pop(number) for number in self.ledger.take()]

    async def advance(self, version: int) -> None:
        """The engine has the trainer's weights of this version: begin what may be begun."""
        self.ledger.version = version
        if self.gate is not None:
            self.gate.open()
        self._admit()

    async def close(self) -> None:
        """Give up what is in flight; what does not end in time is said and left alone."""
        running = list(self._running.values())
        for task in running:
            task.cancel()
        if running:
            _, late = await asyncio.wait(running, timeout=CLOSING_S)
            if late:
                logger.warning("%d groups did not end within %g s", len(late), CLOSING_S)

    def state(self) -> dict[str, Json]:
        """The books, for a checkpoint: what is out begins anew after a resume, and what is
        complete is not played again."""
        ledger = self.ledger
        return {
            "next": ledger.next,
            "dropped": ledger.dropped,
            "out": sorted(ledger.out),
            "back": [[number, oldest] for number, oldest in ledger.back.items()],
        }

    def restore(self, state: Mapping[str, Json], version: int, complete: Sequence[Group]) -> None:
        """Go on from what `state` returned and the groups that were complete then, in its order.

        Raises:
            TrainingError: they are not as many as the books say.
        """
        ledger = self.ledger
        back = cast("list[tuple[int, int]]", state["back"])
        if len(back) != len(complete):
            raise TrainingError(f"expected {len(back)} complete groups, got {len(complete)}")
        ledger.version = version
        ledger.next, ledger.dropped = cast("int", state["next"]), cast("int", state["dropped"])
        ledger.out = dict.fromkeys(cast("list[int]", state["out"]), version)
        ledger.back = dict(back)
        self.complete = dict(zip(ledger.back, complete, strict=True))


def oldest_version(group: Group, default: int) -> int:
    """The oldest version of any token of the group; `default` where the engine tells none."""
    return min(
        (
            version
            for trajectory in group.trajectories
            for turn in trajectory.turns
            for version, count in turn.versions
            if count
        ),
        default=default,
    )
