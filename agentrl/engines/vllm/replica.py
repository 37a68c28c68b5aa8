"""One server of the pool: who speaks to it, what weights it has, whether it may be sampled from.

A replica is *ready* only while it is known to have the weights that the run pushed last. Whatever
makes that doubtful (a push that fails, a process that dies, an answer with another version) breaks
it: its requests end, answers that still come are not used, and it is ready again only after a push
that went through.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from enum import StrEnum

from agentrl.core.errors import DeadlineError, EngineError
from agentrl.core.types import Completion, SamplingParams
from agentrl.engines.vllm.client import Client, Pictures, ServerError, label
from agentrl.engines.vllm.server import Server

logger = logging.getLogger(__name__)


class LostError(EngineError):
    """No answer that could be used: the request may be made again elsewhere."""


class State(StrEnum):
    """Whether a replica may be sampled from."""

    READY = "ready"
    BROKEN = "broken"
    """Not now: it is started again, or waits for weights."""
    GONE = "gone"
    """Dropped."""


@dataclass(kw_only=True, eq=False)
class Replica:
    """A server and what is known of it."""

    client: Client
    server: Server | None = None
    """The process, if the run started it."""
    on_break: Callable[[Replica], None]
    """Told when it breaks."""
    silence_s: float
    """Longest time without an answer, or without a new token while requests are in flight."""
    state: State = State.BROKEN
    why: str = "it was not started yet"
    """What broke it last."""
    is_sick: bool = False
    """Its process is to be mistrusted, not only its weights."""
    versions: set[int] = field(default_factory=set)
    """Weights that it got whole, since it was started."""
    version: int = -1
    """The last of them."""
    breaks: int = 0
    """How often it broke: answers to requests from before a break are not used."""
    restarts: int = 0
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Pushes, starts and questions about its health come one after the other."""
    _cuts: set[asyncio.Timeout] = field(default_factory=set, repr=False)

    @property
    def load(self) -> int:
        """Requests in flight."""
        return len(self._cuts)

    @property
    def is_ready(self) -> bool:
        """It may be sampled from."""
        return self.state is State.READY

    def break_off(self, why: str, *, is_sick: bool = True) -> None:
        """It must not be sampled from; whoever waits for it is told."""
        if self.is_ready:
            logger.warning("vLLM server %s is not sampled from any more: %s", self.client.url, why)
        self.state, self.why, self.is_sick = State.BROKEN, why, is_sick
        self.breaks += 1
        self.versions.clear()
        now = asyncio.get_running_loop().time()
        for cut in self._cuts:
            if not cut.expired():
                cut.reschedule(now)
        self.on_break(self)

    def has(self, version: int) -> None:
        """It got the weights of a version, whole."""
        self.versions.add(version)
        self.version = version
        self.state = State.READY

    @contextmanager
    def _watched(self) -> Iterator[asyncio.Timeout]:
        cut = asyncio.timeout(None)
        self._cuts.add(cut)
        try:
            yield cut
        finally:
            self._cuts.discard(cut)

    async def generate(
        self,
        prompt_ids: Sequence[int],
        params: SamplingParams,
        *,
        name: str,
        priority: int,
        pictures: Pictures | None = None,
    ) -> Completion:
        """One reply with its versions, all of them of weights that this replica got whole.

        Raises:
            LostError: there is no answer that could be used, through no fault of the request.
            ServerError: the server refuses the request.
            AnswerError: the answer cannot be true.
        """
        breaks, version = self.breaks, self.version
        try:
            with self._watched() as cut:
                async with cut:
                    answer = await self.client.generate(
                        prompt_ids, params, request_id=name, priority=priority, pictures=pictures
                    )
        except DeadlineError as error:  # it was given up
            raise LostError(str(error)) from error
        except TimeoutError as error:
            raise self._lost() from error
        except ServerError as error:
            if error.is_refusal:
                raise
            raise LostError(str(error)) from error
        if breaks == self.breaks and self.turn.locked():
            async with self.turn:  # a push may yet fail half way
                pass
        if breaks != self.breaks:
            raise self._lost()
        return self._dated(answer, version)

    def _lost(self) -> LostError:
        return LostError(f"vLLM server {self.client.url} broke off: {self.why}")

    def _dated(self, answer: Completion, before: int) -> Completion:
        """The answer, if it is known which weights made every token."""
        if not answer.versions:
            if before != self.version:
                raise LostError(
                    f"vLLM server {self.client.url} got weights while it sampled, and does not say "
                    "which of them made which token: start it with --enable-scale-out"
                )
            return replace(answer, versions=((before, len(answer.ids)),))
        strange = {version for version, _ in answer.versions} - self.versions
        if strange:
            self.break_off(
                f"it answered with weights of version {sorted(strange)}, and was given "
                f"{sorted(self.versions)}",
                is_sick=False,
            )
            raise self._lost()
        return answer

    async def probe(self, ids: Sequence[int]) -> list[float]:
        """Untempered logprobs of `ids[1:]`. Raises as `generate` does."""
        try:
            with self._watched() as cut:
                async with cut:
                    return await self.client.probe(ids, timeout_s=None)
        except DeadlineError as error:  # it was given up
            raise LostError(str(error)) from error
        except TimeoutError as error:
            raise self._lost() from error
        except ServerError as error:
            if error.is_refusal:
                raise
            raise LostError(str(error)) from error

    async def examine(self, timeout_s: float | None = None) -> str | None:
        """What is wrong with it; None if it says that it is well."""
        if self.server is not None and not self.server.is_alive:
            return self.server.obituary()
        try:
            await self.client.check_health(timeout_s=timeout_s or self.silence_s)
        except (EngineError, DeadlineError) as error:
            return str(error)
        return None

    async def watch(self) -> None:
        """Break it when it falls silent; returns when nobody waits for it any more.

        A sign of life is an answer, and more computed tokens than at the last one.
        """
        seen, same = -1.0, 0
        while True:
            await asyncio.sleep(self.silence_s / 4)
            if not self.is_ready or not self.load:
                return
            if self.turn.locked():  # paused, or looked into already
                same = 0
                continue
            breaks = self.breaks
            why, count = await self._sign()
            if breaks != self.breaks or self.turn.locked():
                continue
            same = same + 1 if count == seen else 0
            seen = -1.0 if count is None else count
            if why is None and same >= 4 and self.load:
                why = f"it computed no token for {self.silence_s:g} s"
            if why is not None:
                self.break_off(why)

    async def guard(self) -> None:
        """While it is pushed to: end what it is asked when it does not even say that it is well."""
        while True:
            await asyncio.sleep(self.silence_s / 4)
            why = await self.examine(self.silence_s / 2)
            if why is not None:
                why = await self.examine(self.silence_s / 2)
            if why is not None:
                self.client.give_up(why)
                return

    async def _sign(self) -> tuple[str | None, float | None]:
        """Why there was no sign of life, or the number of computed tokens. Asks twice: a clock that
        ran while this process was busy is no proof."""
        if self.server is not None and not self.server.is_alive:
            return self.server.obituary(), None
        try:
            return None, await self.client.progress(timeout_s=self.silence_s / 2)
        except DeadlineError:
            pass
        except EngineError as error:
            return str(error), None
        try:
            return None, await self.client.progress(timeout_s=self.silence_s / 2)
        except (EngineError, DeadlineError) as error:
            return str(error), None

    async def confirm(self, version: int) -> None:
        """Have it say that its weights are of a version. Raises `EngineError`."""
        told = await self.client.weights(timeout_s=self.silence_s)
        if told != label(version):
            raise EngineError(
                f"vLLM server {self.client.url} calls its weights {told!r} after a push of "
                f"version {version}"
            )
