"""Low-rank adapters by PEFT."""

from __future__ import annotations

import torch

from agentrl.core.config import Lora
from agentrl.core.errors import ConfigError


def add_lora(module: torch.nn.Module, settings: Lora, seed: int) -> torch.nn.Module:
    """The module with adapters on its linear layers, dropout 0, and its own weights frozen.

    Raises:
        ConfigError: `lora.targets` names no module.
    """
    from peft import LoraConfig, get_peft_model

    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return get_peft_model(
                module,
                LoraConfig(
                    r=settings.rank,
                    lora_alpha=settings.alpha,  # type: ignore[arg-type]
                    lora_dropout=0.0,
                    target_modules=settings.targets,
                    task_type="CAUSAL_LM",
                ),
            )
    except ValueError as error:
        raise ConfigError(f"lora.targets: {settings.targets!r} fits no module: {error}") from error
