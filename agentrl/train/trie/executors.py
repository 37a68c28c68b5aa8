"""How the nodes of a tree are computed: the protocol, and what rules an executor out."""

from __future__ import annotations

from typing import Protocol

import torch
from torch.distributed.tensor import DTensor

from agentrl.engines.attention import unwrapped
from agentrl.train.trie.forest import Forest, Wanted


class Executor(Protocol):
    """Computes every node once, in float32 or what is wider."""

    def refusal(self, module: torch.nn.Module) -> str:
        """Why it cannot compute this module exactly, by all that its config tells; or nothing."""
        ...

    def score(
        self,
        module: torch.nn.Module,
        forest: Forest,
        wanted: Wanted,
        *,
        chunk: int,
        entropy_grad: bool,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """`[N]` tempered logprobs and entropies, with gradient."""
        ...


def refused_by_config(module: torch.nn.Module) -> str:
    """Why no tree can be computed: layers that scan, routers that count, encoders."""
    model = unwrapped(module)
    if not hasattr(model, "config"):
        return f"{type(model).__name__} is no transformers model"
    config = model.config.get_text_config()
    if model.config.is_encoder_decoder:
        return "it has an encoder"
    kinds = set(getattr(config, "layer_types", None) or ())
    if odd := sorted(kinds - {"full_attention", "sliding_attention"}):
        return f"its {odd[0]} layers scan one sequence, and would scan across siblings"
    if getattr(config, "output_router_logits", False):
        return (
            "the auxiliary loss of its router is a mean over tokens, in which shared ones would "
            "count once (model.output_router_logits=false switches it off)"
        )
    return ""


def is_sharded(module: torch.nn.Module) -> bool:
    """Whether ranks meet in every forward pass (FSDP, ZeRO-3)."""
    return any(isinstance(p, DTensor) or hasattr(p, "ds_id") for p in module.parameters())
