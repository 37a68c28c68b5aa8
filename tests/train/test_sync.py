"""The parity probe: an engine that does not hold the trained weights stops the run."""

import asyncio
import copy
import math
from dataclasses import replace

import pytest
import torch

from agentrl.core.errors import TrainingError
from agentrl.engines.generate import Generate
from agentrl.engines.policy import LoadedPolicy
from agentrl.train.sync import push
from support.models import row_of, shared_policy

POLICY = shared_policy()
IDS = row_of(POLICY, "wall ahead", "turn left", "red ball", "go forward").ids
LAST = "model.layers.1.mlp.down_proj.weight"


def pushed(sampled: LoadedPolicy, trained: torch.nn.Module) -> float:
    async def go() -> float:
        engine = Generate()
        await engine.start(sampled)
        try:
            return await push(engine, trained, 3, IDS)
        finally:
            await engine.close()

    return asyncio.run(go())


def double() -> LoadedPolicy:
    return replace(POLICY, module=copy.deepcopy(POLICY.module))


def test_a_push_to_the_shared_module_is_exact() -> None:
    assert pushed(POLICY, POLICY.module) == 0.0


def test_a_copy_with_the_same_weights_passes() -> None:
    assert pushed(double(), POLICY.module) <= 1e-6


@pytest.mark.parametrize("name", [LAST, "model.embed_tokens.weight", "model.norm.weight"])
def test_one_weight_that_did_not_arrive_stops_the_run(name: str) -> None:
    stale = double()
    with torch.no_grad():
        stale.module.get_parameter(name).mul_(1.05)
    with pytest.raises(TrainingError, match=r"weight push 3 failed its parity probe: .* over 21"):
        pushed(stale, POLICY.module)


def test_weights_that_are_not_numbers_stop_the_run() -> None:
    broken = double()
    with torch.no_grad():
        broken.module.get_parameter(LAST).fill_(math.nan)
    for sampled, trained in ((broken, POLICY.module), (POLICY, broken.module)):
        with pytest.raises(TrainingError, match="parity probe"):
            pushed(sampled, trained)


def test_a_push_leaves_the_trainers_mode_and_weights_as_they_were() -> None:
    policy = double()
    policy.module.train()
    pushed(policy, policy.module)
    assert policy.module.training
    for name, weight in POLICY.module.named_parameters():
        assert torch.equal(policy.module.get_parameter(name), weight)
