"""Which models are told what padding is, and that no number depends on it."""

from typing import cast

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from agentrl.core.types import Json, Row
from agentrl.train.score import Padded, looks_left
from agentrl.train.trie.scorer import Trie
from support.models import row
from support.trees import VOCABULARY, model

ROWS = [
    row(tuple(range(1, 30)), (False, *(True,) * 28)),
    row((5, 9, 4, 7), (False, True, False, True)),
    row(tuple(range(40, 53)), (False, False, *(True,) * 11)),
]
HYBRID: dict[str, Json] = {
    "layer_types": ["conv", "full_attention"],
    "num_hidden_layers": 2,
}


def masks_of(module: torch.nn.Module, scorer: Padded | Trie, rows: list[Row]) -> list[bool]:
    """Whether each forward pass of a scoring got a padding mask."""
    seen = []
    hook = module.register_forward_pre_hook(
        lambda _m, _a, named: seen.append(named.get("attention_mask") is not None),
        with_kwargs=True,
    )
    scorer.score(module, rows)
    hook.remove()
    return seen


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("qwen3", {}),
        ("llama", {}),
        ("qwen3_moe", {}),
        ("mistral", {"sliding_window": 5}),
        ("gemma3_text", {"sliding_window": 5}),
        ("gpt2", {"n_embd": 32, "n_layer": 2, "n_head": 4}),
        ("bloom", {"n_layer": 2, "n_head": 4}),
        ("lfm2", HYBRID),
        ("mamba", {"state_size": 8}),
    ],
)
def test_causal_models_score_the_same_without_a_mask(kind: str, changes: dict[str, Json]) -> None:
    module, plain = model(kind, **changes), model(kind, **changes)
    scorer = Padded()
    assert scorer.check(module) == []
    assert masks_of(module, scorer, ROWS) == [False]
    assert masks_of(plain, Padded(), ROWS) == [True], "who was not checked has a mask"
    for made, how in ((module, scorer), (plain, Padded())):
        made.zero_grad()
        found = how.score(made, ROWS)
        found.logp_BT.sum().backward()
    torch.testing.assert_close(
        scorer.score(module, ROWS).logp_BT, Padded().score(plain, ROWS).logp_BT, rtol=0, atol=1e-5
    )
    theirs = {name: p.grad for name, p in plain.named_parameters() if p.grad is not None}
    assert theirs
    for name, weight in module.named_parameters():
        if name in theirs:
            torch.testing.assert_close(weight.grad, theirs[name], rtol=1e-4, atol=1e-4)


def test_a_model_that_looks_right_keeps_its_mask() -> None:
    config = AutoConfig.for_model(
        "bert",
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        vocab_size=VOCABULARY,
    )
    module = cast("PreTrainedModel", AutoModelForCausalLM.from_config(config))
    assert not looks_left(module)
    assert looks_left(
        AutoModelForCausalLM.from_config(type(config)(**config.to_dict() | {"is_decoder": True}))
    )


def test_a_router_whose_loss_counts_tokens_keeps_its_mask() -> None:
    assert not looks_left(model("qwen3_moe", output_router_logits=True))


def test_a_trie_that_pads_masks_no_more_than_padded_does() -> None:
    module, scorer = model(), Trie(executor="padded")
    scorer.check(module)
    assert masks_of(module, scorer, ROWS) == [False]
