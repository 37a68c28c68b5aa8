"""Switching a model's attention, and back."""

import pytest
import torch
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from agentrl.core.config import Lora
from agentrl.core.errors import EngineError
from agentrl.core.types import Json
from agentrl.engines.attention import attention, unwrapped
from agentrl.engines.policy import load_policy
from agentrl.train.lora import add_lora
from support.models import bpe, tiny_policy

IDS = torch.tensor([[7, 8, 9, 10]])
seen: list[object] = []


def listening(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    note: object = None,
    **known: float,
) -> tuple[torch.Tensor, None]:
    seen.append(note)
    assert attention_mask is None
    return sdpa_attention_forward(module, query, key, value, None, **known)  # type: ignore[arg-type]


AttentionInterface.register("listening", listening)


class Wrapped(torch.nn.Module):
    """As DDP and DeepSpeed hold a module."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module = module


@pytest.mark.parametrize("is_adapted", [False, True])
def test_each_layer_calls_the_function_with_the_keywords_of_forward(is_adapted: bool) -> None:
    module = tiny_policy().module
    if is_adapted:
        module = add_lora(module, Lora(rank=2), seed=1)
    before = module(input_ids=IDS).logits
    seen.clear()
    with attention(Wrapped(module), "listening"):
        inside = module(input_ids=IDS, use_cache=False, note="here").logits
    assert seen == ["here", "here"]
    torch.testing.assert_close(inside, before)
    after = module(input_ids=IDS).logits
    assert torch.equal(after, before)
    assert len(seen) == 2


def test_what_was_is_put_back_after_an_error_too() -> None:
    module = tiny_policy().module
    kept = unwrapped(module).config._attn_implementation
    with pytest.raises(ZeroDivisionError), attention(module, "listening"):
        raise ZeroDivisionError
    assert unwrapped(module).config._attn_implementation == kept == "sdpa"


def test_blocks_may_be_nested() -> None:
    module = tiny_policy().module
    config = unwrapped(module).config
    with attention(module, "listening"):
        with attention(module, "listening"):
            pass
        assert config._attn_implementation == "listening"
        with attention(module, "eager"):
            assert config._attn_implementation == "eager"
        assert config._attn_implementation == "listening"
    assert config._attn_implementation == "sdpa"


def test_a_model_whose_attention_cannot_be_chosen_is_refused() -> None:
    config: dict[str, Json] = {"model_type": "bloom", "hidden_size": 32, "n_layer": 1, "n_head": 2}
    module = load_policy(config, seed=0, device="cpu", tokenizer=bpe()).module
    with (
        pytest.raises(EngineError, match="BloomForCausalLM does not take its attention"),
        attention(module, "listening"),
    ):
        pass
