"""Which way weights go to servers: whole, as an adapter, with the adapter added, or over NCCL."""

from __future__ import annotations

import importlib.util
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch

from agentrl.core.errors import DeadlineError, EngineError, MissingExtraError
from agentrl.engines.vllm import weights
from agentrl.engines.vllm.client import Client
from agentrl.engines.vllm.nccl import NcclLink

Way = Literal["shm", "lora", "merged", "nccl"]


@dataclass(kw_only=True)
class Pusher:
    """Brings a policy's weights to servers (`pool.Push`)."""

    way: Way
    alpha: float = 0.0
    """`lora_alpha` of the policy's adapter; 0 where it has none."""
    keep_kv: bool = False
    """Keys and values of older weights are gone on with."""
    host: str = "127.0.0.1"
    """An address of this machine that servers reach; for NCCL."""
    push_s: float
    _link: NcclLink | None = field(default=None, init=False, repr=False)
    _memory: weights.SharedMemory = field(
        default_factory=weights.SharedMemory, init=False, repr=False
    )

    def __post_init__(self) -> None:
        if self.way == "nccl" and importlib.util.find_spec("vllm") is None:
            raise MissingExtraError("vllm", "vllm")

    async def __call__(
        self, clients: Sequence[Client], tensors: Mapping[str, torch.Tensor], version: int
    ) -> None:
        """Bring `tensors` to servers as a version; the policy's, or whole ones from a folder.

        Raises:
            PushError: some servers do not have them then.
            EngineError: nothing was sent.
        """
        is_adapted = any(".lora_A." in name for name in tensors)
        if is_adapted and self.way == "lora":
            for client in clients:
                client.model = weights.ADAPTER
            await weights.push_adapter(
                clients,
                tensors,
                version,
                alpha=self.alpha,
                keep_kv=self.keep_kv,
                timeout_s=self.push_s,
            )
            return
        whole = weights.merged(tensors, alpha=self.alpha) if is_adapted else tensors
        if self.way == "nccl":
            await self._broadcast(clients, whole, version)
        else:
            await weights.push(
                clients,
                whole,
                version,
                keep_kv=self.keep_kv,
                memory=self._memory,
                timeout_s=self.push_s,
            )

    async def _broadcast(
        self, clients: Sequence[Client], tensors: Mapping[str, torch.Tensor], version: int
    ) -> None:
        """Over a link to exactly these servers; another one is made where they have changed."""
        link, self._link = self._link, None
        if link is None or [*map(id, link.clients)] != [*map(id, clients)]:
            link = NcclLink(clients=clients, host=self.host, port=_free_port(self.host))
            try:
                await link.connect(timeout_s=self.push_s)
            except DeadlineError as error:
                raise EngineError(str(error)) from error
        await link.push(tensors, version, keep_kv=self.keep_kv, timeout_s=self.push_s)
        self._link = link


def _free_port(host: str) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])
