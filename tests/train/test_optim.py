"""The learning-rate schedule and what the optimiser holds."""

import pytest
import torch

from agentrl.core.config import Lora, Optim
from agentrl.train.lora import add_lora
from agentrl.train.optim import build_optimiser, learning_rate, set_learning_rate
from support.models import tiny_policy


def rates(settings: Optim, steps: int) -> list[float]:
    at = learning_rate(settings, steps)
    return [at(step) for step in range(steps)]


@pytest.mark.parametrize(
    ("schedule", "warmup", "expected"),
    [
        ("constant", 0, [1, 1, 1, 1]),
        ("constant", 2, [0.5, 1, 1, 1]),
        ("linear", 0, [1, 0.75, 0.5, 0.25]),
        ("linear", 2, [0.5, 1, 1, 0.5]),
        ("cosine", 0, [1, 0.853553, 0.5, 0.146447]),
        ("constant", 8, [0.125, 0.25, 0.375, 0.5]),
    ],
)
def test_schedules(schedule: str, warmup: int, expected: list[float]) -> None:
    settings = Optim(lr=1.0, schedule=schedule, warmup=warmup)  # type: ignore[arg-type]
    assert rates(settings, 4) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
@pytest.mark.parametrize("warmup", [0, 1, 5, 50])
def test_rates_stay_between_zero_and_the_peak(schedule: str, warmup: int) -> None:
    settings = Optim(lr=3e-4, schedule=schedule, warmup=warmup)  # type: ignore[arg-type]
    assert all(0 < rate <= 3e-4 for rate in rates(settings, 20))


def test_the_settings_reach_the_optimiser() -> None:
    module = tiny_policy().module
    settings = Optim(lr=0.01, betas=(0.8, 0.9), weight_decay=0.1)
    optimiser = build_optimiser(module, settings)
    set_learning_rate(optimiser, 0.25)
    (group,) = optimiser.param_groups
    assert (group["lr"], group["betas"], group["weight_decay"]) == (0.25, (0.8, 0.9), 0.1)
    assert len(group["params"]) == len(list(module.parameters()))
    assert isinstance(optimiser, torch.optim.AdamW)


def test_frozen_weights_are_not_held() -> None:
    adapted = add_lora(tiny_policy().module, Lora(rank=2), seed=0)
    held = {id(p) for g in build_optimiser(adapted, Optim()).param_groups for p in g["params"]}
    assert held == {id(p) for name, p in adapted.named_parameters() if "lora_" in name}
