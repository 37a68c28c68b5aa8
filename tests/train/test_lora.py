"""Low-rank adapters: they start as nothing, alone are trained, and say what they cannot adapt."""

import pytest
import torch

from agentrl.core.config import Lora
from agentrl.core.errors import ConfigError
from agentrl.train.lora import add_lora
from support.models import logprobs, row_of, tiny_policy


def test_new_adapters_change_nothing_and_alone_are_trained() -> None:
    policy = tiny_policy()
    ids = row_of(policy, "red ball", "go forward").ids
    before = logprobs(policy.module, ids)
    adapted = add_lora(policy.module, Lora(rank=4, alpha=8), seed=0)
    torch.testing.assert_close(logprobs(adapted, ids), before, rtol=0, atol=0)
    trained = {name for name, weight in adapted.named_parameters() if weight.requires_grad}
    assert trained
    assert all("lora_" in name for name in trained)
    layers = {name.split(".lora_")[0].rsplit(".", 1)[1] for name in trained}
    assert layers == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


def test_the_seed_decides_the_adapters() -> None:
    def first(seed: int) -> torch.Tensor:
        adapted = add_lora(tiny_policy().module, Lora(rank=4), seed)
        return next(w for name, w in adapted.named_parameters() if "lora_A" in name)

    assert torch.equal(first(1), first(1))
    assert not torch.equal(first(1), first(2))


def test_targets_are_a_regular_expression_over_module_names() -> None:
    adapted = add_lora(tiny_policy().module, Lora(rank=4, targets=r".*\.(q|v)_proj"), seed=0)
    named = {name.split(".lora_")[0].rsplit(".", 1)[1] for name, _ in adapted.named_parameters()}
    assert {"q_proj", "v_proj"} <= named
    assert sum("lora_A" in name for name, _ in adapted.named_parameters()) == 4


@pytest.mark.parametrize("targets", ["nothing", "["])
def test_targets_that_fit_nothing_are_a_config_error(targets: str) -> None:
    with pytest.raises(ConfigError, match=r"lora\.targets: .* fits no module"):
        add_lora(tiny_policy().module, Lora(targets=targets), seed=0)


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`:UserWarning")
def test_tied_weights_cannot_be_adapted() -> None:
    with pytest.raises(ConfigError, match="share their weights"):
        add_lora(tiny_policy().module, Lora(targets=".*lm_head"), seed=0)
    add_lora(tiny_policy(tie_word_embeddings=False).module, Lora(targets=".*lm_head"), seed=0)
