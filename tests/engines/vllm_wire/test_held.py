"""Weights that are kept at hand: what was pushed, or nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from agentrl.core.config import Lora
from agentrl.engines.policy import load_policy, save_base
from agentrl.engines.vllm.held import GoneError, HeldFolder, HeldTensors
from agentrl.train.lora import add_lora
from support.models import logprobs, tiny_policy

IDS = [3, 1, 4, 1, 5, 9]


def test_an_optimiser_step_is_noticed_in_the_tensors_that_were_pushed() -> None:
    policy = tiny_policy()
    held = HeldTensors(version=4, given=policy.module.state_dict())
    assert held.tensors() is held.given
    optimiser = torch.optim.AdamW(policy.module.parameters(), lr=1e-6, fused=True)
    policy.module(input_ids=torch.tensor([IDS])).logits.sum().backward()
    held.check()
    optimiser.step()
    with pytest.raises(GoneError, match=r"weights of version 4 are gone: the trainer has changed"):
        held.tensors()


@pytest.mark.parametrize("change", [lambda x: x.mul_(1.5), lambda x: x.data.mul_(1.5)])
def test_one_changed_tensor_is_noticed_behind_torch_s_back_too(change: object) -> None:
    tensors = {"a": torch.ones(3, 40), "b": torch.arange(1000.0), "c": torch.zeros(0)}
    held = HeldTensors(version=0, given=tensors)
    held.check()
    change(tensors["b"])  # type: ignore[operator]
    with pytest.raises(GoneError, match="changed b since"):
        held.check()


def test_a_folder_holds_the_weights_that_were_saved_there(tmp_path: Path) -> None:
    policy = tiny_policy()
    policy.save(tmp_path)
    held = HeldFolder(version=0, folder=tmp_path)
    saved = {name: tensor.clone() for name, tensor in policy.module.state_dict().items()}
    with torch.no_grad():
        next(policy.module.parameters()).zero_()
    held.check()
    found = held.tensors()
    assert found.keys() <= saved.keys()
    assert all(torch.equal(found[name], saved[name]) for name in found)


def test_the_base_of_a_lora_policy_is_saved_without_its_adapter(tmp_path: Path) -> None:
    policy = tiny_policy()
    before = logprobs(policy.module, IDS)
    policy.module = add_lora(policy.module, Lora(rank=2), 0)
    with torch.no_grad():
        for name, weight in policy.module.named_parameters():
            if "lora_" in name:
                weight.normal_()
    assert not torch.allclose(logprobs(policy.module, IDS), before, atol=1e-3)
    save_base(policy, tmp_path)
    again = load_policy(str(tmp_path), seed=0, device="cpu")
    assert torch.equal(logprobs(again.module, IDS), before)
