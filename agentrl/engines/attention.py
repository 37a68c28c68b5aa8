"""Another attention function for a Hugging Face model, for as long as a block of code runs.

A function that is registered with transformers' `AttentionInterface` and has no mask function of
its own gets no mask: which keys a query sees is its own affair. Keywords that are given to the
model's `forward` reach it in every layer.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

import torch

from agentrl.core.errors import EngineError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

WRAPPINGS = ("get_base_model", "_orig_mod", "module")
"""Where PEFT, torch.compile and the parallel wrappers (DDP, DeepSpeed) keep what they wrap."""


def unwrapped(module: torch.nn.Module) -> PreTrainedModel:
    """The Hugging Face model inside; adapters stay in it, since they replace its layers."""
    for name in WRAPPINGS:
        inner = getattr(module, name, None)
        if inner is not None:
            return unwrapped(inner if isinstance(inner, torch.nn.Module) else inner())
    return cast("PreTrainedModel", module)


@contextmanager
def attention(module: torch.nn.Module, name: str) -> Iterator[None]:
    """Every layer of the module calls the attention function registered as `name`; the one that it
    called before is put back.

    The choice lies in the model's config, which all its users share: training and sampling must not
    overlap on one module.

    Raises:
        EngineError: the model does not let its attention be chosen.
    """
    model = unwrapped(module)
    config = model.config
    kept: dict[str, str | dict[str, object]] = {"": config._attn_implementation}
    for key in config.sub_configs:
        if (part := getattr(config, key, None)) is not None:
            kept[key] = part._attn_implementation
    if kept[""] == name:
        yield
        return
    model.set_attn_implementation(name)
    try:
        if config._attn_implementation != name:
            raise EngineError(
                f"{type(model).__name__} does not take its attention from transformers' "
                "AttentionInterface; use engine=generate and scorer=padded"
            )
        yield
    finally:
        model.set_attn_implementation(kept)


@contextmanager
def sampling(module: torch.nn.Module, name: str) -> Iterator[None]:
    """As `attention`, without gradients, dropout and gradient checkpointing. Tensors made inside
    cannot be trained with."""
    was_training = module.training
    module.eval()
    try:
        with torch.inference_mode(), attention(module, name):
            yield
    finally:
        module.train(was_training)
