"""Low-rank adapters by PEFT."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, cast

import torch

from agentrl.core.config import Lora
from agentrl.core.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def add_lora(module: torch.nn.Module, settings: Lora, seed: int) -> torch.nn.Module:
    """The module with adapters on its linear layers, dropout 0, and its own weights frozen.

    Raises:
        ConfigError: `lora.targets` names no module, or one whose weights are tied to another's.
    """
    from peft import LoraConfig, get_peft_model

    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            adapted = get_peft_model(
                module,
                LoraConfig(
                    r=settings.rank,
                    lora_alpha=settings.alpha,  # type: ignore[arg-type]
                    lora_dropout=0.0,
                    target_modules=settings.targets,
                    task_type="CAUSAL_LM",
                ),
            )
    except (ValueError, re.error) as error:
        raise ConfigError(f"lora.targets: {settings.targets!r} fits no module: {error}") from error
    base = cast("PreTrainedModel", adapted.get_base_model())
    ends = (base.get_input_embeddings(), base.get_output_embeddings())
    if base.config.tie_word_embeddings and any(hasattr(end, "base_layer") for end in ends):
        raise ConfigError(
            f"lora.targets: {settings.targets!r} adapts the head or the embedding, which share "
            "their weights in this model, so that merging the adapter would change both"
        )
    return adapted
