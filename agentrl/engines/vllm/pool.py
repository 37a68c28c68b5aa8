"""Several servers as one: who gets a request, and what happens when one of them fails.

A turn goes to the server that holds its episode's prefix, the first turn of an episode to the one
that holds its group's; otherwise the least loaded one is taken. A request that was lost through no
fault of its own is made once more. A server that broke is started again if the run owns it, and
gets the weights again; it is dropped if that fails too often, or if it is somebody else's. The run
goes on while one is left.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, TypeAlias

import torch

from agentrl.core.deadlines import standstill
from agentrl.core.errors import DeadlineError, EngineError
from agentrl.core.types import Completion, SamplingParams
from agentrl.engines.vllm.client import Client, Pictures
from agentrl.engines.vllm.held import GoneError, Held
from agentrl.engines.vllm.replica import LostError, Replica, State
from agentrl.engines.vllm.server import Server
from agentrl.engines.vllm.weights import PushError

Push: TypeAlias = Callable[[Sequence[Client], Mapping[str, torch.Tensor], int], Awaitable[None]]
logger = logging.getLogger(__name__)

ENDING_S = 3.0
"""How long a server whose engine died takes to end."""


@dataclass(kw_only=True, eq=False)
class Pool:
    """The servers that a run samples from."""

    replicas: list[Replica] = field(default_factory=list)
    push: Push
    """Brings tensors to servers as a version. Raises `PushError` if some do not have them then."""
    folder: Path
    """What servers are started from."""
    fresh: Held | None = None
    """The weights that a server has which was started from there."""
    vocabulary: int
    start_s: float
    push_s: float
    restarts: int
    """How often a server is started again before it is dropped."""
    max_seqs: int
    """Requests that a server computes at once."""
    _held: Held | None = field(default=None, init=False)
    _homes: dict[int, Replica] = field(default_factory=dict, init=False)
    _groups: dict[int, dict[int, Replica]] = field(default_factory=dict, init=False)
    _group_of: dict[int, int] = field(default_factory=dict, init=False)
    _tasks: dict[tuple[str, int], asyncio.Task[None]] = field(default_factory=dict, init=False)
    _news: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    _prefix: str = field(default_factory=lambda: secrets.token_hex(4), init=False)
    _numbers: count[int] = field(default_factory=count, init=False)

    @property
    def ready(self) -> list[Replica]:
        """Those that may be sampled from."""
        return [replica for replica in self.replicas if replica.is_ready]

    # --- requests ---------------------------------------------------------------------------------

    async def generate(
        self,
        prompt_ids: Sequence[int],
        params: SamplingParams,
        *,
        episode: int,
        group: int,
        pictures: Pictures | None = None,
    ) -> Completion:
        """One reply. Raises `EngineError`."""
        avoided: Replica | None = None
        while True:
            replica = await self._place(episode, group, avoided)
            self._settle(replica, episode, group)
            name = f"{self._prefix}-{episode}-{next(self._numbers)}"
            asked = replica.generate(
                prompt_ids, params, name=name, priority=episode, pictures=pictures
            )
            self._spawn("watch", replica, replica.watch)
            try:
                return await asked
            except LostError as error:
                if avoided is not None:
                    raise
                avoided = replica
                logger.info("a request is made again: %s", error)
                look = self._spawn("look", replica, partial(self._look, replica))
                if self.ready == [replica]:
                    await asyncio.wait({look})

    async def _place(self, episode: int, group: int, avoided: Replica | None) -> Replica:
        """The server for a request; waits for one that comes back.

        Raises:
            EngineError: there is none any more.
        """
        while True:
            chosen = self._choose(episode, group, avoided)
            if chosen is not None:
                return chosen
            if all(replica.state is State.GONE for replica in self.replicas):
                raise EngineError(f"no vLLM server is left: {self._whys()}")
            with standstill():
                await self._news.wait()

    def _choose(self, episode: int, group: int, avoided: Replica | None) -> Replica | None:
        ready = self.ready
        others = [replica for replica in ready if replica is not avoided] or ready
        if not others:
            return None
        home = self._homes.get(episode)
        if home in others:
            return home
        idle = min(others, key=lambda replica: replica.load)
        for nest in self._groups.get(group, {}).values():
            if nest in others and (nest.load < self.max_seqs or nest.load <= idle.load):
                return nest
        return idle

    def _settle(self, replica: Replica, episode: int, group: int) -> None:
        self._homes[episode] = replica
        self._group_of[episode] = group
        self._groups.setdefault(group, {})[episode] = replica

    def end(self, episode: int) -> None:
        """The episode is over; its group's server is known while a sibling lives."""
        self._homes.pop(episode, None)
        group = self._group_of.pop(episode, None)
        if group is not None:
            members = self._groups[group]
            members.pop(episode)
            if not members:
                del self._groups[group]

    async def probe(self, ids: Sequence[int]) -> dict[str, list[float]]:
        """Untempered logprobs of `ids[1:]` from every server that may be sampled from; one that
        does not answer breaks.

        Raises:
            EngineError: none answers, or an answer cannot be true.
        """
        ready = self.ready
        asked = [replica.probe(ids) for replica in ready]
        for replica in ready:
            self._spawn("watch", replica, replica.watch)
        found: dict[str, list[float]] = {}
        for replica, answer in zip(
            ready, await asyncio.gather(*asked, return_exceptions=True), strict=True
        ):
            if isinstance(answer, LostError):
                if replica.is_ready:
                    replica.break_off(str(answer))
            elif isinstance(answer, BaseException):
                raise answer
            else:
                found[replica.client.url] = answer
        if not found:
            raise EngineError(f"no vLLM server answers: {self._whys()}")
        return found

    # --- the servers' life ------------------------------------------------------------------------

    async def open(self, held: Held) -> None:
        """Start or greet every server and bring it weights. All must come up: what fails at the
        start is a fault of the settings.

        Raises:
            EngineError: one does not.
        """
        self._held = held
        failures = await asyncio.gather(*(self._rise(replica) for replica in self.replicas))
        if not any(failures):
            lacking = [replica for replica in self.replicas if not replica.is_ready]
            failures = list((await self._give(lacking)).values()) if lacking else []
        if any(failures):
            raise EngineError("; ".join(filter(None, failures)))

    async def sleep(self) -> None:
        """Have servers give back their GPU's memory; one that fails at it breaks."""
        await self._each("/sleep?level=1&mode=wait")

    async def wake(self) -> None:
        """Have them take it again."""
        await self._each("/wake_up")

    async def _each(self, path: str) -> None:
        ready = self.ready
        asked = [replica.client.post(path, timeout_s=self.push_s) for replica in ready]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        for replica, answer in zip(ready, answers, strict=True):
            if isinstance(answer, EngineError | DeadlineError):
                replica.break_off(str(answer))
            elif isinstance(answer, BaseException):
                raise answer

    # --- weights ----------------------------------------------------------------------------------

    async def load(self, held: Held) -> None:
        """Bring weights to every server; those that fail are seen to while the others go on.

        Raises:
            EngineError: no server has them in the end.
        """
        self._held = held
        for replica in self.replicas:
            if replica.state is State.GONE and replica.server is None:
                self._spawn("return", replica, partial(self._return, replica))
        there: list[Replica] = []
        async with AsyncExitStack() as turns:
            for replica in self.replicas:
                if self._is_there(replica):
                    await turns.enter_async_context(replica.turn)
                    there.append(replica)
            failures = await self._give(there)
        for replica, failure in failures.items():
            replica.break_off(f"a push failed: {failure}", is_sick=False)
        while not self.ready:
            coming = [task for (what, _), task in self._tasks.items() if what == "recover"]
            if not coming:
                raise EngineError(f"no vLLM server has the weights: {self._whys()}")
            await asyncio.wait(coming, return_when=asyncio.FIRST_COMPLETED)

    def _is_there(self, replica: Replica) -> bool:
        """Nobody sees to it now, and it was not dropped."""
        return replica.state is not State.GONE and ("recover", id(replica)) not in self._tasks

    async def _return(self, replica: Replica) -> None:
        """A server that was dropped, and is somebody else's, may be back: if it samples again."""
        async with replica.turn:
            try:
                await replica.client.greet(timeout_s=replica.silence_s)
            except (EngineError, DeadlineError):
                return
            replica.why = (await self._give([replica])).get(replica, replica.why)

    async def _give(self, replicas: Sequence[Replica]) -> dict[Replica, str]:
        """Push the newest weights to servers whose turn is held; which of them failed, and why.

        Weights that are gone are no failure: the servers stay broken until newer ones come.
        """
        failures: dict[Replica, str] = {}
        held: Held | None = None
        taken = list(replicas)
        while taken and held is not self._held:  # newer weights may come meanwhile
            held = self._held
            assert held is not None
            try:
                failures |= await self._push_once(taken, held)
            except GoneError as error:
                for replica in taken:
                    replica.state, replica.why = State.BROKEN, str(error)
                if held is self._held:
                    return failures
                continue
            taken = [replica for replica in taken if replica not in failures]
        for replica in taken:
            assert held is not None
            replica.has(held.version)
        self._tell()
        return failures

    async def _push_once(self, replicas: Sequence[Replica], held: Held) -> dict[Replica, str]:
        """Push, and hear from every server that it has the weights. Raises `GoneError`."""
        failures: dict[Replica, str] = {}
        try:
            async with _guarded(replicas):
                clients = [replica.client for replica in replicas]
                await self.push(clients, held.tensors(), held.version)
        except GoneError:
            raise
        except PushError as error:
            failures = {replicas[i]: str(failure.error) for i, failure in error.failures.items()}
        except EngineError as error:
            return dict.fromkeys(replicas, str(error))
        held.check()
        for replica in replicas:
            if replica not in failures:
                try:
                    await replica.confirm(held.version)
                except (EngineError, DeadlineError) as error:
                    failures[replica] = str(error)
        return failures

    # --- failures ---------------------------------------------------------------------------------

    def broke(self, replica: Replica) -> None:
        """See to a server that broke."""
        self._tell()
        if ("recover", id(replica)) not in self._tasks:
            self._spawn("recover", replica, partial(self._recover, replica))

    async def _look(self, replica: Replica) -> None:
        """After a lost request: is the server well?"""
        breaks = replica.breaks
        async with replica.turn:
            why = await replica.examine() if replica.is_ready else None
        if why is not None and breaks == replica.breaks:
            replica.break_off(why)

    async def _recover(self, replica: Replica) -> None:
        """Push again if only its weights are in doubt; start it again; drop it."""
        async with replica.turn:
            failure: str | None = replica.why
            if not replica.is_sick:
                failure = (await self._give([replica])).get(replica)
                failure = f"{replica.why}; pushed again: {failure}" if failure else None
            while failure is not None and replica.server is not None:
                if replica.restarts >= self.restarts:
                    failure += f" (it was started again {replica.restarts} times before)"
                    break
                replica.restarts += 1
                logger.warning("vLLM server %s is started again: %s", replica.client.url, failure)
                failure = await self._rise(replica)
                if failure is None and not replica.is_ready:
                    failure = (await self._give([replica])).get(replica)
            if failure is not None:
                replica.state, replica.why = State.GONE, failure
                logger.warning("vLLM server %s is dropped: %s", replica.client.url, failure)
                if replica.server is not None:
                    await replica.server.stop()
        self._tell()

    async def _rise(self, replica: Replica) -> str | None:
        """Start an own server anew, or greet a given one; why that failed, or None. It may be ready
        then, or still lack the weights."""
        try:
            if replica.server is not None:
                await replica.server.start(self.folder, self.start_s)
                await replica.client.close()
                replica.client = Client(
                    replica.server.url, replica.server.api_key, vocabulary=self.vocabulary
                )
            await replica.client.greet(timeout_s=self.start_s)
            held = self._held
            if replica.server is not None and held is not None and held is self.fresh:
                await replica.client.name_weights(held.version, timeout_s=self.push_s)
                if held is self._held:
                    replica.has(held.version)
                    self._tell()
        except (EngineError, DeadlineError) as error:
            return f"{error}{await _last_words(replica.server)}"
        return None

    def _whys(self) -> str:
        return "; ".join(f"{replica.client.url}: {replica.why}" for replica in self.replicas)

    def _tell(self) -> None:
        """Wake those who wait for a server."""
        news, self._news = self._news, asyncio.Event()
        news.set()

    # --- work that goes on beside requests --------------------------------------------------------

    def _spawn(
        self, what: str, replica: Replica, work: Callable[[], Coroutine[Any, Any, None]]
    ) -> asyncio.Task[None]:
        """One such task for each server at a time. They outlive the call that starts them, so no
        TaskGroup can hold them; `close` ends them."""
        key = what, id(replica)

        async def run() -> None:
            try:
                await work()
            except Exception:  # the boundary of work that nobody waits for
                logger.exception("seeing to vLLM server %s failed", replica.client.url)
            finally:
                del self._tasks[key]

        if key not in self._tasks:
            self._tasks[key] = asyncio.get_running_loop().create_task(run())
        return self._tasks[key]

    async def close(self) -> None:
        """End all work and every server that the run started."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task
        for replica in self.replicas:
            replica.state, replica.why = State.GONE, "it was closed"
            await replica.client.close()
        own = [replica.server for replica in self.replicas if replica.server is not None]
        await asyncio.gather(*(server.stop() for server in own))
        self._tell()


@asynccontextmanager
async def _guarded(replicas: Sequence[Replica]) -> AsyncIterator[None]:
    """Servers that fall silent in here fail at once, and not at the deadline."""
    guards = [asyncio.create_task(replica.guard()) for replica in replicas]
    try:
        yield
    finally:
        for guard in guards:
            guard.cancel()
        await asyncio.gather(*guards, return_exceptions=True)


async def _last_words(server: Server | None) -> str:
    """How a server that failed as soon as it was asked ended, if it does."""
    if server is None or not server.port:
        return ""
    for _ in range(int(ENDING_S / 0.1)):
        if not server.is_alive:
            return f"; {server.obituary()}"
        await asyncio.sleep(0.1)
    return ""
