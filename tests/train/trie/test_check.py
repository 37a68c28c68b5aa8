"""The start-up check: what cannot be computed as a tree is refused aloud, or padded by `auto`."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from agentrl.core.errors import ConfigError
from agentrl.core.types import Json
from agentrl.engines.attention import unwrapped
from agentrl.train.score import Padded, tempered
from agentrl.train.trie.attention import attend, install
from agentrl.train.trie.dfs import Dfs
from agentrl.train.trie.forest import Forest, Wanted
from agentrl.train.trie.scorer import EXECUTORS, Trie, forced_rows
from agentrl.train.trie.segment import Segment
from support.models import tiny_policy
from support.trees import model

ROWS = forced_rows(64)


@dataclass(frozen=True)
class Wrong(Segment):
    """A forward pass of the packed tree that goes wrong in one of the ways that raise nothing."""

    changes: dict[str, Any] = field(default_factory=dict)

    def score(
        self,
        module: torch.nn.Module,
        forest: Forest,
        wanted: Wanted,
        *,
        chunk: int,
        entropy_grad: bool,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        install()
        given: dict[str, Any] = {
            "input_ids": torch.from_numpy(forest.ids_T)[None],
            "position_ids": torch.from_numpy(forest.depth_T)[None],
            "attention_mask": torch.ones(1, 1, 1, 1, dtype=torch.bool),
            "tree": forest,
            **self.changes,
        }
        parents_R = torch.from_numpy(wanted.parents_R)
        logits_RV = module(use_cache=False, logits_to_keep=parents_R, **given).logits[0]
        return tempered(
            logits_RV[torch.from_numpy(wanted.row_N)],
            torch.from_numpy(wanted.temperature_N),
            torch.from_numpy(wanted.ids_N),
            chunk=chunk,
            entropy_grad=entropy_grad,
        )


SILENT: dict[str, dict[str, Any]] = {
    "jumps of the position taken for packed documents": {"tree": None, "attention_mask": None},
    "siblings that see each other": {"tree": None, "attention_mask": torch.ones(1, 42)},
    "positions along the packed order": {"position_ids": None},
    "attention to everything": {"tree": None},
}


@pytest.mark.parametrize("how", SILENT)
@pytest.mark.parametrize("weights", ["as initialised", "larger"])
def test_what_goes_wrong_silently_is_found_by_the_check(
    monkeypatch: pytest.MonkeyPatch, how: str, weights: str
) -> None:
    assert Forest.of(ROWS).unique == 42
    module = model() if weights == "larger" else tiny_policy().module
    monkeypatch.setitem(EXECUTORS, "segment", Wrong(SILENT[how]))
    with pytest.raises(ConfigError, match=r"logprobs differ from those of padded rows by \d"):
        Trie(executor="segment").check(module)
    scorer = Trie()
    (told,) = scorer.check(module)
    assert told.startswith("scorer: not by 'segment': on a small tree")
    expected = Padded().score(module, ROWS).logp_BT
    torch.testing.assert_close(scorer.score(module, ROWS).logp_BT, expected, rtol=0, atol=1e-5)


def test_the_right_forward_pass_is_not_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EXECUTORS, "segment", Wrong())
    assert Trie().check(model()) == []


def test_a_mixed_window_that_is_lost_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    window: dict[str, Json] = {
        "sliding_window": 5,
        "use_sliding_window": True,
        "max_window_layers": 1,
    }
    assert Trie(executor="segment").check(model("qwen3", **window)) == []
    monkeypatch.setattr("agentrl.train.trie.attention.attend", lambda *args: attend(*args[:5]))
    with pytest.raises(ConfigError, match="logprobs differ"):
        Trie(executor="segment").check(model("qwen3", **window))


REFUSED: dict[str, tuple[dict[str, Json], str]] = {
    "qwen3_moe": ({"output_router_logits": True}, "auxiliary loss of its router"),
    "qwen3_next": (
        {
            "linear_num_value_heads": 4,
            "linear_num_key_heads": 2,
            "linear_key_head_dim": 8,
            "linear_value_head_dim": 8,
            "layer_types": ["linear_attention", "full_attention"],
        },
        "linear_attention layers scan one sequence",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_no_tree_computes_is_refused_or_padded(kind: str) -> None:
    changes, reason = REFUSED[kind]
    module = model(kind, **changes)
    for name in ("segment", "dfs"):
        with pytest.raises(ConfigError, match=rf"{name}' cannot score .*{reason}.*scorer=padded"):
            Trie(executor=name).check(module)
    scorer = Trie()
    told = scorer.check(module)
    assert len(told) == 3
    assert scorer.split(ROWS, 60) == Padded().split(ROWS, 60)
    assert told[-1] == "scorer: rows are padded, and shared prefixes computed for each"


def test_attention_with_sinks_is_computed_depth_first() -> None:
    sinks: dict[str, Json] = {"num_local_experts": 4, "layer_types": ["full_attention"] * 2}
    module = model("gpt_oss", **sinks)
    with pytest.raises(ConfigError, match=r"attention is 'eager', and trees need 'sdpa'"):
        Trie(executor="segment").check(module)
    (told,) = Trie().check(module)
    assert "'eager'" in told


@pytest.mark.parametrize(
    "given", [{"softcap": 30.0}, {"s_aux": torch.zeros(4)}], ids=["softcap", "sinks"]
)
def test_sinks_and_caps_that_reach_sdpa_are_refused(given: dict[str, Any]) -> None:
    install()
    with pytest.raises(ConfigError, match=f"attention with {next(iter(given))}"):
        model()(
            input_ids=torch.tensor([[1, 2]]),
            attention_mask=torch.ones(1, 1, 1, 1, dtype=torch.bool),
            tree=Forest.of(ROWS),
            **given,
        )


def test_depth_first_is_refused_where_ranks_meet() -> None:
    module = model()
    assert Dfs().refusal(module) == ""
    weight = next(module.parameters())
    weight.ds_id = 0  # type: ignore[attr-defined]
    assert "ranks meet in every forward pass" in Dfs().refusal(module)


def test_what_is_no_transformers_model_is_refused() -> None:
    with pytest.raises(ConfigError, match="Linear is no transformers model"):
        Trie(executor="segment").check(torch.nn.Linear(2, 2))


def test_a_module_is_checked_once_and_an_unchecked_one_says_what_it_lacks(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, scorer, passes = tiny_policy().module, Trie(), []
    module.register_forward_hook(lambda *_: passes.append(1))
    for _ in range(2):
        scorer.score(module, ROWS)
    assert len(passes) == 4, "two of the check, one for each score"
    monkeypatch.setattr(Segment, "refusal", lambda *_: "a reason")
    with caplog.at_level(logging.WARNING):
        Trie().score(module, ROWS)
    assert [r.message for r in caplog.records] == ["scorer: not by 'segment': a reason"]


def test_padded_is_what_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    scorer, module = Trie(executor="padded"), model()
    assert scorer.check(module) == []
    assert not scorer.score(module, ROWS).metrics
    assert scorer.split(ROWS, 60) == Padded().split(ROWS, 60)


def test_the_check_leaves_the_module_as_it_was() -> None:
    module = model().train()
    before = unwrapped(module).config._attn_implementation
    Trie(executor="dfs").check(module)
    assert module.training
    assert unwrapped(module).config._attn_implementation == before
    assert all(weight.grad is None for weight in module.parameters())
