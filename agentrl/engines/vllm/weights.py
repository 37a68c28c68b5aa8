"""Hands the trainer's weights to servers: whole through shared memory, or an adapter.

A push pauses a server, drops its KV, exchanges the weights and resumes it. Requests in flight wait
and go on with the new weights, over a context that the new weights have computed anew; vLLM notes
with each token which version made it. `extension/agentrl_vllm.py` is the other end. It stays
the caller's part to compare logprobs afterwards (`train/sync.py`).
"""

from __future__ import annotations

import asyncio
import json
import mmap
import os
import shutil
import tempfile
import time
import weakref
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import save_file

from agentrl.core.errors import DeadlineError, EngineError
from agentrl.engines.vllm.client import Client, label

ADAPTER = "adapter"
"""The name under which requests ask for the pushed adapter."""
PUSH_S = 600.0
"""How long a push may take in all."""
SHARED = Path("/dev/shm")
FILE = "adapter_model.safetensors"

DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""Their names in safetensors."""

Tensors = Mapping[str, torch.Tensor]


class Holds(StrEnum):
    """What a server holds after a push that failed."""

    OLD = "the weights it had"
    MIXED = "weights of two versions"
    NEW = "the new weights, and is paused"
    UNKNOWN = "nobody knows which weights"


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A push that one server did not take."""

    url: str
    holds: Holds
    error: EngineError | DeadlineError

    @property
    def is_usable(self) -> bool:
        """The server goes on with the weights it had. Otherwise it is left paused, and must be
        started anew before anything is sampled from it."""
        return self.holds is Holds.OLD


class PushError(EngineError):
    """Some servers did not take a push; the others have it."""

    def __init__(self, version: int, failures: Mapping[int, Failure]) -> None:
        told = "; ".join(f"{f.url} holds {f.holds}: {f.error}" for f in failures.values())
        super().__init__(f"weight push {version} failed at {len(failures)} server(s): {told}")
        self.failures = failures
        """By the index of the server."""


async def push(
    clients: Sequence[Client],
    tensors: Tensors,
    version: int,
    *,
    memory: SharedMemory | None = None,
    keep_kv: bool = False,
    dtype: torch.dtype | None = None,
    timeout_s: float = PUSH_S,
) -> None:
    """Give every server all weights, through memory that they share with this process.

    An adapter that was pushed before is forgotten; no request may ask for it meanwhile.

    Args:
        tensors: under their names in the checkpoint; of tied ones the first name counts.
        memory: kept from push to push, which makes the next one quicker; None takes some for this
            one alone.
        keep_kv: go on with keys and values that the old weights made.
        dtype: what floating-point weights are sent as; None sends them as they are.

    Raises:
        PushError: some servers did not take it; it says what they hold now.
        EngineError: nothing was sent.
    """
    used = memory if memory is not None and not memory.is_busy else SharedMemory()
    used.is_busy = True
    is_over = False
    try:
        path = await used.write(untied(tensors), dtype)
        await exchange(
            clients, partial(_load, path, version), version, keep_kv=keep_kv, timeout_s=timeout_s
        )
        is_over = True
    finally:
        used.is_busy = False
        if used is not memory or not is_over:  # a server that is late may read on
            used.close()


async def _load(path: Path, version: int, client: Client, left: Callable[[], float]) -> None:
    """A paused server reads the file."""
    if ADAPTER in await _served(client, left()):  # the worker forgets it now
        body: dict[str, object] = {"lora_name": ADAPTER}
        await client.post("/v1/unload_lora_adapter", body, timeout_s=left())
    await client.post("/start_weight_update", {}, timeout_s=left())
    update = {"update_info": {"path": str(path)}}
    await client.post("/update_weights", update, timeout_s=left())
    finish = {"weight_version": label(version)}
    await client.post("/finish_weight_update", finish, timeout_s=left())


async def push_adapter(
    clients: Sequence[Client],
    tensors: Tensors,
    version: int,
    *,
    alpha: float,
    keep_kv: bool = False,
    folder: Path | None = None,
    timeout_s: float = PUSH_S,
) -> None:
    """Give every server the adapter of a PEFT module; requests ask for it as model `ADAPTER`.

    Args:
        tensors: the module's weights (`parallel.gather()`), of which those of the adapter are sent.
        alpha: the adapter's `lora_alpha`.
        folder: where the adapter is written for the time of the push; None takes shared memory.

    Raises:
        PushError: some servers did not take it; it says what they hold now.
        EngineError: there is no adapter among `tensors`.
    """
    adapter = adapter_only(tensors)
    where = folder or (SHARED if SHARED.is_dir() else None)
    with tempfile.TemporaryDirectory(prefix="agentrl-adapter-", dir=where) as made:
        write_adapter(Path(made), adapter, alpha)

        async def swap(client: Client, left: Callable[[], float]) -> None:
            if ADAPTER in await _served(client, left()):
                body: dict[str, object] = {"method": "agentrl_swap_adapter", "args": [made]}
                await client.post("/collective_rpc", body, timeout_s=left())
            else:
                body = {"lora_name": ADAPTER, "lora_path": made}
                await client.post("/v1/load_lora_adapter", body, timeout_s=left())
            await client.name_weights(version, timeout_s=left())

        await exchange(clients, swap, version, keep_kv=keep_kv, timeout_s=timeout_s)


async def _served(client: Client, timeout_s: float) -> set[str]:
    """The names that a server answers to."""
    answer = await client.get("/v1/models", timeout_s=timeout_s)
    if not isinstance(answer, dict):
        raise EngineError(f"{client.url}: /v1/models answered {answer!r}")
    return {str(card["id"]) for card in answer["data"]}


# --- the exchange ---------------------------------------------------------------------------------

Change = Callable[[Client, Callable[[], float]], Awaitable[None]]
"""Changes the weights of a paused server; the second argument says how many seconds are left."""


async def exchange(
    clients: Sequence[Client], change: Change, version: int, *, keep_kv: bool, timeout_s: float
) -> None:
    """Pause, change, resume every server, all at the same time. Raises `PushError`."""
    outcomes = await asyncio.gather(
        *(_exchange(client, change, keep_kv=keep_kv, timeout_s=timeout_s) for client in clients)
    )
    failures = {i: failure for i, failure in enumerate(outcomes) if failure is not None}
    if failures:
        raise PushError(version, failures)


async def _exchange(
    client: Client, change: Change, *, keep_kv: bool, timeout_s: float
) -> Failure | None:
    deadline = time.monotonic() + timeout_s

    def left() -> float:
        return max(0.0, deadline - time.monotonic())

    holds = Holds.OLD
    try:
        clear = "false" if keep_kv else "true"
        await client.post(f"/pause?mode=keep&clear_cache={clear}", timeout_s=left())
        if not keep_kv:
            await _drop_kv(client, left())
        holds = Holds.MIXED
        await change(client, left)
        holds = Holds.NEW
        await client.post("/resume", timeout_s=left())
    except DeadlineError as error:
        return Failure(url=client.url, holds=Holds.UNKNOWN, error=error)
    except EngineError as error:
        if holds is Holds.OLD:
            with suppress(EngineError, DeadlineError):
                await client.post("/resume", timeout_s=left())
        return Failure(url=client.url, holds=holds, error=error)
    return None


async def _drop_kv(client: Client, timeout_s: float) -> None:
    """Pausing dropped it already in the versions we know, though vLLM calls that deprecated."""
    answer = await client.post(
        "/reset_prefix_cache?reset_running_requests=true", timeout_s=timeout_s
    )
    if not isinstance(answer, dict) or not answer.get("success"):
        raise EngineError(f"{client.url} did not drop its prefix cache: {answer!r}")


# --- which tensors --------------------------------------------------------------------------------


def untied(tensors: Tensors) -> dict[str, torch.Tensor]:
    """Each tensor once, under the first of its names. Raises `EngineError` if there is none."""
    seen: set[tuple[object, ...]] = set()
    kept: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        place = (tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride())
        if tensor.numel() and place in seen:
            continue
        seen.add(place)
        kept[name] = tensor
    if not kept:
        raise EngineError("a server was to be given no weights: it shares none with the trainer")
    return kept


def adapter_only(tensors: Tensors) -> dict[str, torch.Tensor]:
    """The weights of a PEFT module's one adapter, under the names of its file.

    Raises:
        EngineError: the module has no adapter.
    """
    kept = {
        name.replace(".default.", "."): tensor
        for name, tensor in tensors.items()
        if ".lora_A." in name or ".lora_B." in name
    }
    if not kept:
        raise EngineError("an adapter was to be pushed, and the module has none (lora is not set)")
    return kept


def merged(tensors: Tensors, *, alpha: float) -> dict[str, torch.Tensor]:
    """A PEFT module's weights under the base model's names: W + alpha / rank * B A.

    Args:
        tensors: the module's weights (`parallel.gather()`).
        alpha: the adapter's `lora_alpha`.
    """
    factors = adapter_only(tensors)
    found = {}
    for name, tensor in tensors.items():
        if ".lora_" in name:
            continue
        layer, _, last = name.rpartition(".base_layer.")
        a, b = (factors.get(f"{layer}.lora_{side}.weight") for side in "AB")
        if layer and last == "weight" and a is not None and b is not None:
            # In float32, as the trainer's forward pass computes it.
            delta = b.float() @ a.float() * (alpha / a.shape[0])
            tensor = (tensor.float() + delta).to(tensor.dtype)
        found[name.replace(".base_layer.", ".").removeprefix("base_model.model.")] = tensor
    return found


# --- where they lie -------------------------------------------------------------------------------


class SharedMemory:
    """A safetensors file in memory, which servers on this machine open by its path.

    Memory that was used before is quicker to write. Without `folder` the file has no name and needs
    no room anywhere: it is gone with this process, whatever ends it.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        """Where the file lies, for servers that cannot see this process: of another user, or in
        another container."""
        self.is_busy = False
        """A push goes on that uses it."""
        self._head = b""
        self._data: mmap.mmap | None = None
        self._path = Path()
        self._drop: Callable[[], object] = _nothing

    async def write(self, tensors: Tensors, dtype: torch.dtype | None = None) -> Path:
        """Put tensors there, in the place of those before.

        Raises:
            EngineError: there is no room.
        """
        kinds = {name: _kind(tensor, dtype) for name, tensor in tensors.items()}
        # The widest come first, so that all lie where a tensor may begin.
        names = sorted(tensors, key=lambda name: -kinds[name].itemsize)
        head, places = _layout({name: tensors[name] for name in names}, kinds)
        if head != self._head or self._data is None:
            self.close()
            self._open(head, places[names[-1]][1])
        data = self._data
        assert data is not None
        for name in names:
            begin, end = places[name]
            if begin < end:
                kind = kinds[name]
                there = torch.frombuffer(
                    data, dtype=kind, count=tensors[name].numel(), offset=len(head) + begin
                )
                there.view(tensors[name].shape).copy_(tensors[name].detach())
                await asyncio.sleep(0)  # episodes go on meanwhile
        return self._path

    def _open(self, head: bytes, size: int) -> None:
        """Take memory for so many bytes behind the header."""
        if self.folder is None:
            number = os.memfd_create("agentrl-weights")
            self._path = Path(f"/proc/{os.getpid()}/fd/{number}")
            self._drop = weakref.finalize(self, os.close, number)
        else:
            if (need := len(head) + size) > (free := shutil.disk_usage(self.folder).free):
                raise EngineError(
                    f"{self.folder} has room for {free / 2**20:.0f} MiB, and the weights take "
                    f"{need / 2**20:.0f} MiB; name another folder, or none (needs no room there)"
                )
            made, name = tempfile.mkstemp(prefix="agentrl-weights-", dir=self.folder)
            number, self._path = made, Path(name)
            os.fchmod(number, 0o644)  # the server may be another user's
            self._drop = weakref.finalize(self, _remove, number, self._path)
        os.truncate(number, len(head) + size)
        self._head, self._data = head, mmap.mmap(number, len(head) + size)
        self._data[: len(head)] = head

    def close(self) -> None:
        """Give the memory back; may be called twice, and a later `write` takes new."""
        self._head, self._data = b"", None
        self._drop()
        self._drop = _nothing


def _nothing() -> None:
    """There is nothing to give back."""


def _remove(number: int, path: Path) -> None:
    os.close(number)
    path.unlink(missing_ok=True)


def _kind(tensor: torch.Tensor, dtype: torch.dtype | None) -> torch.dtype:
    """As what a tensor is sent."""
    return dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype


def _layout(
    tensors: Tensors, kinds: Mapping[str, torch.dtype]
) -> tuple[bytes, dict[str, tuple[int, int]]]:
    """The head of a safetensors file (its length and a JSON object), and where each tensor begins
    and ends behind it."""
    places, end = {}, 0
    for name, tensor in tensors.items():
        begin, end = end, end + tensor.numel() * kinds[name].itemsize
        places[name] = (begin, end)
    told = {
        name: {
            "dtype": DTYPES[kinds[name]],
            "shape": list(tensor.shape),
            "data_offsets": places[name],
        }
        for name, tensor in tensors.items()
    }
    text = json.dumps(told).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text, places


def write_adapter(folder: Path, adapter: Tensors, alpha: float) -> None:
    """A PEFT adapter's files."""
    places = {name.partition(".lora_")[0].rpartition(".")[2] for name in adapter}
    rank = next(tensor.shape[0] for name, tensor in adapter.items() if ".lora_A." in name)
    settings = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": rank,
        "lora_alpha": alpha,
        "target_modules": sorted(places),
        "bias": "none",
    }
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    save_file({name: t.contiguous() for name, t in adapter.items()}, folder / FILE)
