"""Real vLLM servers with tiny models, and what a trainer would say of the same tokens."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from agentrl.engines.vllm.client import Client
from agentrl.engines.vllm.server import Server, ServerSettings
from agentrl.engines.vllm.weights import ADAPTER, push
from support.models import bpe, logprobs

if TYPE_CHECKING:
    from transformers import PreTrainedModel

T = TypeVar("T")
ROOT = Path(__file__).parents[2]
START_S = 300.0
ANSWER_S = 60.0
EXACT = 1e-4
"""Nats in float32."""
GROUPS = {
    "norms": ("norm",),
    "qkv": ("q_proj", "k_proj", "v_proj"),
    "o": ("o_proj",),
    "mlp": ("mlp",),
    "embeddings": ("embed_tokens",),
    "head": ("lm_head",),
}
"""Groups of parameters, by parts of their names."""


def interpreter() -> Path | None:
    """The one that AGENTRL_VLLM_PYTHON names, or that of the environment that `.ci/install-vllm`
    made, if it is there."""
    if named := os.environ.get("AGENTRL_VLLM_PYTHON"):
        return Path(named)
    venv = ROOT / os.environ.get("AGENTRL_VLLM_VENV", ".venv-vllm")
    return venv / "bin/python" if (venv / ".installed").is_file() else None


@dataclass(kw_only=True)
class Served:
    """A real server, and the model that a trainer has."""

    server: Server
    folder: Path
    module: PreTrainedModel
    version: int = 0
    loop: asyncio.Runner = field(default_factory=asyncio.Runner)

    @property
    def client(self) -> Client:
        """Asks for the model."""
        return Client(self.server.url, self.server.api_key)

    def start(self) -> None:
        """From the folder's weights, which the module gets as well."""
        self.run(lambda _: self.server.start(self.folder, START_S))
        fresh = AutoModelForCausalLM.from_pretrained(self.folder, dtype=torch.float32)
        self.module.load_state_dict(fresh.state_dict())
        self.version = 0
        self.run(lambda client: client.name_weights(0, timeout_s=ANSWER_S))

    def close(self) -> None:
        """End the server."""
        self.run(lambda _: self.server.stop())
        self.loop.close()

    def run(self, verb: Callable[[Client], Awaitable[T]], model: str | None = None) -> T:
        """Do something with a client."""

        async def call() -> T:
            client = Client(self.server.url, self.server.api_key, model=model)
            try:
                return await verb(client)
            finally:
                await client.close()

        return self.loop.run(call())

    def inside(self, method: str, *arguments: str) -> None:
        """Call a method of the test extension in the server's worker."""
        body = {"method": method, "args": list(arguments)}
        self.run(lambda client: client.post("/collective_rpc", body, timeout_s=ANSWER_S))

    def push(self, tensors: Mapping[str, torch.Tensor] | None = None) -> int:
        """The module's weights, or others, as a new version."""
        self.version += 1
        weights = self.module.state_dict() if tensors is None else tensors
        self.run(lambda client: push([client], weights, self.version, timeout_s=ANSWER_S))
        return self.version

    def gap(self, ids: Sequence[int], module: torch.nn.Module | None = None) -> float:
        """Largest difference (nats) between the logprobs of server and module, which may be one
        with an adapter that was pushed."""
        model = None if module is None else ADAPTER
        theirs = self.run(lambda client: client.probe(ids, timeout_s=ANSWER_S), model)
        with torch.no_grad():
            ours = logprobs(self.module if module is None else module, ids)
        return float((torch.tensor(theirs) - ours).abs().max())


def change(module: torch.nn.Module, group: str = "", size: float = 0.05) -> None:
    """As an optimiser might: every weight of a group differently; without a group all."""
    parts = GROUPS.get(group, ("",))
    changed = [p for name, p in module.named_parameters() if any(part in name for part in parts)]
    assert changed, f"no parameter is of group {group!r}"
    with torch.no_grad():
        for weight in changed:
            weight.add_(torch.randn_like(weight) * size)


def build(folder: Path, architecture: str, *, tied: bool) -> PreTrainedModel:
    """A tiny model, saved as a Hugging Face folder. vLLM's kernels want heads of at least 32."""
    tokenizer = bpe()
    config = AutoConfig.for_model(
        architecture,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        tie_word_embeddings=tied,
        max_position_embeddings=1024,
        vocab_size=len(tokenizer),
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    module.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return cast("PreTrainedModel", module.eval())


def serve(
    python: Path, folder: Path, architecture: str, *, tied: bool, lora_rank: int = 0
) -> Served:
    """A server of a tiny model, started."""
    settings = ServerSettings(
        python=python,
        dtype="float32",
        is_eager=True,
        max_model_len=1024,
        lora_rank=lora_rank,
        extension="breakable.Extension",
        environment={"PYTHONPATH": str(Path(__file__).parent / "vllm_inside")},
    )
    module = build(folder, architecture, tied=tied)
    server = Server(settings=settings, log=folder.with_suffix(".log"))
    served = Served(server=server, folder=folder, module=module)
    served.start()
    return served
