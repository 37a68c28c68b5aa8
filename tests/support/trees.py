"""Rows that share prefixes in every way, models of four kinds, and true double precision."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from typing import Any, Literal, cast
from unittest.mock import patch

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.models.llama import modeling_llama
from transformers.models.qwen2 import modeling_qwen2
from transformers.models.qwen3 import modeling_qwen3
from transformers.models.qwen3_moe import modeling_qwen3_moe

from agentrl.core.types import Json, Row
from support.models import row, settings

Kind = Literal["qwen3", "qwen2", "llama", "qwen3_moe"]
KINDS: tuple[Kind, ...] = ("qwen3", "qwen2", "llama", "qwen3_moe")

VOCABULARY = 64
EXPERTS: dict[str, Json] = {
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
}


def model(kind: str = "qwen3", **changes: Json) -> PreTrainedModel:
    """Two layers with random weights, large enough that a wrong neighbour is seen."""
    moe = EXPERTS if kind.endswith("moe") else {}
    config = AutoConfig.for_model(
        kind,
        **{**settings(), **moe, **changes},
        vocab_size=VOCABULARY,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = cast(
            "PreTrainedModel", AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        )
        with torch.no_grad():
            for weight in made.parameters():
                if weight.dim() > 1:
                    weight.mul_(5)
    made.eval()
    return made


def rows_of(rng: Random, count: int, *, longest: int = 9) -> list[Row]:
    """Rows that begin as others do, at any depth: copies, prefixes of others, other roots, rows
    without a sampled token, three temperatures."""
    made: list[Row] = []
    for number in range(count):
        ids: list[int] = []
        if made and rng.random() < 0.8:
            other = rng.choice(made).ids
            ids = list(other[: rng.randint(1, len(other))])
        ids += [rng.randrange(VOCABULARY) for _ in range(rng.randint(not ids, longest))]
        density = rng.choice((0.0, 0.3, 0.7, 1.0))
        mask = [t > 0 and rng.random() < density for t in range(len(ids))]
        made.append(row(ids, mask, trajectory=number // 2, temperature=rng.choice((0.7, 1.0, 1.3))))
    return made


def bushy(rng: Random, *, depth: int, length: int) -> list[Row]:
    """Every path forks in two after each `length` tokens, of which half are sampled."""
    paths: list[list[int]] = [[]]
    for _ in range(depth):
        paths = [[*p, *(rng.randrange(VOCABULARY) for _ in range(length))] for p in paths * 2]
    mask = [t % 2 == 1 for t in range(depth * length)]
    return [row(ids, mask, trajectory=number) for number, ids in enumerate(paths)]


@contextmanager
def true_double(module: PreTrainedModel) -> Iterator[PreTrainedModel]:
    """Norms, rotary embeddings and routers in the precision of the model; transformers has them in
    float32."""

    def norm(self: modeling_llama.LlamaRMSNorm, x: torch.Tensor) -> torch.Tensor:
        scale = torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)
        return self.weight * x * scale

    def rotary(
        self: torch.nn.Module, x: torch.Tensor, position_ids: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        angles = position_ids[..., None].double() * self.inv_freq.double()  # type: ignore[operator]
        both = torch.cat([angles, angles], dim=-1)
        return both.cos(), both.sin()

    def router(
        self: modeling_qwen3_moe.Qwen3MoeTopKRouter, x: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        logits = x.reshape(-1, self.hidden_dim) @ self.weight.mT
        values, chosen = logits.softmax(-1).topk(self.top_k, dim=-1)
        return logits, values, chosen

    patches: list[Any] = [
        patch.object(modeling_qwen3_moe.Qwen3MoeTopKRouter, "forward", router),
        *(
            patch.object(getattr(module, f"{name}{part}"), "forward", new)
            for module, name in (
                (modeling_llama, "Llama"),
                (modeling_qwen2, "Qwen2"),
                (modeling_qwen3, "Qwen3"),
                (modeling_qwen3_moe, "Qwen3Moe"),
            )
            for part, new in (("RMSNorm", norm), ("RotaryEmbedding", rotary))
        ),
    ]
    for one in patches:
        one.start()
    if hasattr(module.config, "num_experts"):
        module.set_experts_implementation("eager")  # the others multiply in float32
    try:
        yield module.double()
    finally:
        for one in patches:
            one.stop()
