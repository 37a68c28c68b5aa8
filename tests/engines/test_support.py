"""Which models can be sampled through slots."""

import pytest
import torch
from transformers import AttentionInterface

from agentrl.core.errors import EngineError
from agentrl.core.types import Json
from agentrl.engines import packed
from agentrl.engines.attention import sampling
from agentrl.engines.policy import load_policy
from agentrl.engines.support import measure
from support.models import bpe, settings, tiny_policy

KNOWN = {key: value for key, value in settings().items() if key != "tie_word_embeddings"}


def module(**config: Json) -> torch.nn.Module:
    return load_policy(config, seed=0, device="cpu", tokenizer=bpe()).module


def test_the_shape_is_that_of_keys_and_values() -> None:
    shape = measure(tiny_policy().module)
    assert shape[:5] == (2, 2, 2, 8, 8)
    assert shape.token_bytes == 2 * 2 * 2 * 8 * 4


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"model_type": "gemma2", **KNOWN}, "it has layers of sliding_attention"),
        ({"model_type": "mistral", **KNOWN, "sliding_window": 8}, "a window of 8 tokens"),
        ({"model_type": "qwen3_next", **KNOWN, "num_experts": 0}, "layers of linear_attention"),
        ({"model_type": "gpt_oss", **KNOWN}, "it has layers of sliding_attention"),
        ({"model_type": "mamba", "hidden_size": 32, "num_hidden_layers": 1}, "linear_attention"),
        (
            {
                "model_type": "llama",
                **KNOWN,
                "rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0},
            },
            "its rotation depends on the longest row",
        ),
    ],
    ids=["gemma2", "mistral", "qwen3_next", "gpt_oss", "mamba", "dynamic-rope"],
)
def test_what_slots_cannot_stand_for_is_refused_by_name(config: dict[str, Json], why: str) -> None:
    with pytest.raises(EngineError, match=why):
        measure(module(**config))


def test_keywords_that_bend_attention_are_refused() -> None:
    llama = module(model_type="llama", **KNOWN)
    llama.get_submodule("model.layers.1.self_attn").register_forward_pre_hook(
        lambda _, args, known: (args, {**known, "s_aux": torch.zeros(4)}), with_kwargs=True
    )
    with pytest.raises(EngineError, match="its attention has s_aux"):
        measure(llama)


def test_a_model_that_computes_something_else_through_slots_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def shifted(self: packed.Packed, layer: int, *args: torch.Tensor) -> torch.Tensor:
        return attend(self, layer, *args) * (1.01 if layer else 1)  # type: ignore[arg-type]

    attend = packed.Packed.attend
    monkeypatch.setattr(packed.Packed, "attend", shifted)
    with pytest.raises(EngineError, match="logprobs through slots differ from its own by"):
        measure(tiny_policy().module)


def test_a_model_called_in_the_middle_of_sampling_says_so() -> None:
    policy = tiny_policy()
    assert packed.NAME in AttentionInterface()
    with sampling(policy.module, packed.NAME), pytest.raises(EngineError, match="must not overlap"):
        policy.module(input_ids=torch.tensor([[1, 2]]))
