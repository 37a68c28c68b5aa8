"""The optimiser and its learning-rate schedule, stepped by the loop."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from agentrl.core.config import Optim


def build_optimiser(module: torch.nn.Module, settings: Optim) -> torch.optim.Optimizer:
    """AdamW over the trainable weights."""
    trainable = [p for p in module.parameters() if p.requires_grad]
    return torch.optim.AdamW(
        trainable, lr=settings.lr, betas=settings.betas, weight_decay=settings.weight_decay
    )


def learning_rate(settings: Optim, steps: int) -> Callable[[int], float]:
    """The learning rate at each step: linear warm-up, then constant, or down to 0 at `steps`."""

    def at(step: int) -> float:
        if step < settings.warmup:
            return settings.lr * (step + 1) / settings.warmup
        done = (step - settings.warmup) / max(steps - settings.warmup, 1)
        if settings.schedule == "linear":
            return settings.lr * max(1.0 - done, 0.0)
        if settings.schedule == "cosine":
            return settings.lr * 0.5 * (1.0 + math.cos(math.pi * min(done, 1.0)))
        return settings.lr

    return at


def set_learning_rate(optimiser: torch.optim.Optimizer, value: float) -> None:
    """The same rate for every parameter group."""
    for group in optimiser.param_groups:
        group["lr"] = value
