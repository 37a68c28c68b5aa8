"""Hands the trainer's weights from its GPU to the GPUs of servers, by vLLM's own NCCL backend.

For servers on other GPUs or other machines that were started with `transfer: nccl`. Trainer and all
workers form one group, of which the trainer is rank 0; a push broadcasts each tensor once to all.
The trainer's environment needs vLLM for the group itself. This was tested for what goes over HTTP,
against vLLM 0.32's own checks of it; no GPU was at hand to run a broadcast.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, TypeVar

import torch

from agentrl.core.errors import DeadlineError, EngineError, MissingExtraError
from agentrl.engines.vllm.client import Client, label
from agentrl.engines.vllm.weights import PUSH_S, Failure, Holds, PushError, Tensors, untied

T = TypeVar("T")


class Group(Protocol):
    """As much of vLLM's communicator as a push uses."""

    def broadcast(self, tensor: torch.Tensor, src: int, stream: object = None) -> None:
        """Send (rank `src`) or receive a tensor."""


@dataclass(kw_only=True)
class NcclLink:
    """The group of this trainer and its servers. A push that fails breaks it for good: then the
    servers are started anew, and linked again."""

    clients: Sequence[Client]
    host: str
    """An address of this machine that all servers reach."""
    port: int
    """A free port there."""
    device: torch.device = field(default_factory=lambda: torch.device("cuda"))
    _group: Group | None = field(default=None, init=False, repr=False)

    async def connect(self, *, timeout_s: float = PUSH_S) -> None:
        """Meet all workers of all servers.

        Raises:
            MissingExtraError: vLLM is not installed beside the trainer.
            EngineError: a server was not started for this, or could not meet us.
            DeadlineError: not all came within `timeout_s` seconds.
        """
        sizes = [await self._world(client, timeout_s) for client in self.clients]
        meeting = {
            "master_address": self.host,
            "master_port": self.port,
            "world_size": 1 + sum(sizes),
        }
        bodies = [
            {"init_info": {**meeting, "rank_offset": 1 + sum(sizes[:i]), "packed": False}}
            for i in range(len(sizes))
        ]
        try:
            async with asyncio.timeout(timeout_s):
                asked = asyncio.gather(
                    *(
                        client.post("/init_weight_transfer_engine", body, timeout_s=timeout_s)
                        for client, body in zip(self.clients, bodies, strict=True)
                    )
                )
                self._group, _ = await asyncio.gather(_aside(partial(_meet, meeting)), asked)
        except TimeoutError as error:
            raise DeadlineError(
                f"not all of {1 + sum(sizes)} processes met at {self.host}:{self.port} within "
                f"{timeout_s:g} s"
            ) from error

    @staticmethod
    async def _world(client: Client, timeout_s: float) -> int:
        """How many workers a server has."""
        answer = await client.get("/get_world_size", timeout_s=timeout_s)
        if not isinstance(answer, dict) or not isinstance(answer.get("world_size"), int):
            raise EngineError(f"{client.url}: /get_world_size answered {answer!r}")
        return int(answer["world_size"])

    async def push(
        self,
        tensors: Tensors,
        version: int,
        *,
        keep_kv: bool = False,
        timeout_s: float = PUSH_S,
    ) -> None:
        """Give every server all weights; arguments as of `weights.push`.

        Raises:
            PushError: all servers must be started anew, but for one that was not asked yet.
            EngineError: `connect` was not called.
        """
        group = self._group
        if group is None:
            raise EngineError("weights were to be broadcast before connect()")
        sent, deadline = untied(tensors), time.monotonic() + timeout_s
        told = {
            "names": list(sent),
            "dtype_names": [str(tensor.dtype).removeprefix("torch.") for tensor in sent.values()],
            "shapes": [list(tensor.shape) for tensor in sent.values()],
        }
        clear = "false" if keep_kv else "true"

        async def ask(path: str, body: Mapping[str, object] | None = None) -> None:
            left = max(0.0, deadline - time.monotonic())
            await asyncio.gather(*(c.post(path, body, timeout_s=left) for c in self.clients))

        holds = Holds.OLD
        try:
            async with asyncio.timeout(timeout_s):
                await ask(f"/pause?mode=keep&clear_cache={clear}")
                if not keep_kv:
                    await ask("/reset_prefix_cache?reset_running_requests=true")
                holds = Holds.MIXED
                await ask("/start_weight_update", {})
                await asyncio.gather(
                    ask("/update_weights", {"update_info": told}),
                    _aside(partial(self._broadcast, group, sent)),
                )
                await ask("/finish_weight_update", {"weight_version": label(version)})
                holds = Holds.NEW
                await ask("/resume")
        except (EngineError, DeadlineError, TimeoutError, RuntimeError) as error:
            self._group = None
            raise self._failed(version, holds, error) from error

    def _broadcast(self, group: Group, tensors: Tensors) -> None:
        """Send each tensor, in the order that the servers were told."""
        kept = []  # NCCL reads them after the call
        stream: Any = torch.cuda.current_stream() if self.device.type == "cuda" else None
        for tensor in tensors.values():
            kept.append(tensor.detach().to(self.device).contiguous())
            group.broadcast(kept[-1], src=0, stream=stream)
        if stream is not None:
            stream.synchronize()

    def _failed(self, version: int, holds: Holds, error: Exception) -> PushError:
        """All share one group, so that what one lacks nobody can vouch for."""
        late = isinstance(error, (DeadlineError, TimeoutError))
        cause = error if isinstance(error, EngineError | DeadlineError) else EngineError(str(error))
        left = Holds.UNKNOWN if late or holds is not Holds.MIXED else holds
        return PushError(
            version,
            {
                i: Failure(url=client.url, holds=left, error=cause)
                for i, client in enumerate(self.clients)
            },
        )


async def _aside(work: Callable[[], T]) -> T:
    """In a thread that nobody waits for when the process ends: NCCL may never come back."""
    done: Future[T] = Future()

    def run() -> None:
        try:
            done.set_result(work())
        except Exception as error:  # noqa: BLE001 - the boundary of a thread: whoever awaits gets it
            done.set_exception(error)

    threading.Thread(target=run, name="nccl", daemon=True).start()
    return await asyncio.wrap_future(done)


def _meet(meeting: Mapping[str, object]) -> Group:
    """vLLM's communicator, as rank 0. Waits for all others."""
    try:
        from vllm.distributed.weight_transfer.nccl_common import trainer_init
    except ImportError as error:
        raise MissingExtraError("vllm", "vllm") from error
    group: Group = trainer_init(dict(meeting))
    return group
