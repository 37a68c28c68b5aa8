"""The trie against padded rows: the same numbers and gradients, from every token once."""

from __future__ import annotations

import copy
from collections.abc import Callable
from random import Random
from typing import cast

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agentrl.core.config import Lora
from agentrl.core.errors import DataError
from agentrl.core.protocols import Scorer
from agentrl.core.tensors import LossOut
from agentrl.core.types import Row
from agentrl.train.lora import add_lora
from agentrl.train.score import Padded, evaluating
from agentrl.train.trie.forest import Forest, Wanted
from agentrl.train.trie.scorer import Trie
from support.models import row, tiny_policy
from support.steps import step, train_rows, weights
from support.trees import KINDS, bushy, model, rows_of, true_double

EXECUTORS = ["segment", "dfs"]
ROWS = rows_of(Random(3), 14)
each_executor = pytest.mark.parametrize("name", EXECUTORS)


def trie(name: str) -> Trie:
    return Trie(executor=name)  # type: ignore[arg-type]


def assert_same(
    module: torch.nn.Module, name: str, rows: list[Row], logp: float, grad: float, entropy: bool
) -> None:
    """Largest difference of a logprob or entropy, and of a gradient over the largest of all."""
    one, other = module, copy.deepcopy(module)
    expected = Padded().score(one, rows, entropy_grad=entropy)
    found = trie(name).score(other, rows, entropy_grad=entropy)
    torch.testing.assert_close(found.logp_BT, expected.logp_BT, rtol=0, atol=logp)
    torch.testing.assert_close(found.entropy_BT, expected.entropy_BT, rtol=0, atol=logp)
    assert found.entropy_BT.requires_grad == entropy
    weights_BT = torch.randn(expected.logp_BT.shape, generator=torch.Generator().manual_seed(0))
    for scores in (expected, found):
        loss = (scores.logp_BT * weights_BT).sum()
        if entropy:
            loss = loss + (scores.entropy_BT * weights_BT.flip(0)).sum()
        loss.backward()
    pairs = [
        (a.grad, b.grad)
        for a, b in zip(one.parameters(), other.parameters(), strict=True)
        if a.grad is not None
    ]
    largest = max(float(a.abs().max()) for a, _ in pairs)
    assert largest > 0
    for a, b in pairs:
        torch.testing.assert_close(b, a, rtol=0, atol=grad * largest)


@each_executor
@pytest.mark.parametrize("kind", KINDS)
def test_a_tree_scores_as_padded_rows_do(kind: str, name: str) -> None:
    assert_same(model(kind), name, ROWS, 1e-5, 1e-4, entropy=True)


@each_executor
@pytest.mark.parametrize(
    "kind", [KINDS[0], *(pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS[1:])]
)
def test_in_true_double_precision_nothing_is_lost(kind: str, name: str) -> None:
    with true_double(model(kind)) as module:
        assert_same(module, name, ROWS, 1e-12, 1e-12, entropy=True)


@each_executor
@settings(max_examples=4)
@given(st.integers(0, 10**9), st.integers(1, 8), st.booleans())
def test_any_rows_score_as_if_padded(name: str, seed: int, count: int, entropy: bool) -> None:
    rows = rows_of(Random(seed), count)
    if any(any(one.mask) for one in rows):
        assert_same(model(), name, rows, 2e-5, 1e-4, entropy)


@each_executor
def test_an_adapter_is_trained_alike(name: str) -> None:
    module = add_lora(model(), Lora(rank=4), seed=0)
    for label, weight in module.named_parameters():
        if "lora_B" in label:
            weight.data.normal_(0.0, 0.1, generator=torch.Generator().manual_seed(1))
    assert_same(module, name, ROWS, 1e-5, 1e-4, entropy=False)


@each_executor
def test_checkpointed_layers_have_the_same_gradients(name: str) -> None:
    module = model()
    enable = cast("Callable[..., None]", module.activation_checkpointing_enable)
    enable(activation_checkpointing_kwargs={"use_reentrant": False})
    assert_same(module.train(), name, ROWS, 1e-5, 1e-4, entropy=False)


@each_executor
def test_windows_shorter_than_the_rows_are_kept(name: str) -> None:
    for kind in ("mistral", "qwen3"):
        window = {"sliding_window": 5}
        if kind == "qwen3":
            window |= {"use_sliding_window": True, "max_window_layers": 1}
        assert_same(model(kind, **window), name, ROWS, 1e-5, 1e-4, entropy=False)
        gap = (
            Padded().score(model(kind), ROWS).logp_BT
            - Padded().score(model(kind, **window), ROWS).logp_BT
        )
        assert float(gap.detach().abs().max()) > 0.01, "a window that is lost would be seen"


@each_executor
def test_without_gradients_the_numbers_are_the_same(name: str) -> None:
    module = model()
    with evaluating(module):
        expected = Padded().score(module, ROWS)
        found = trie(name).score(module, ROWS)
    frozen = trie(name).score(copy.deepcopy(module).requires_grad_(False), ROWS)
    for scores in (found, frozen):
        torch.testing.assert_close(scores.logp_BT, expected.logp_BT, rtol=0, atol=1e-5)
        assert not scores.logp_BT.requires_grad


@each_executor
def test_rows_without_a_sampled_token_score_nothing(name: str) -> None:
    scores = trie(name).score(model(), [row((7, 8, 9), (False,) * 3)])
    assert scores.logp_BT.tolist() == [[0.0, 0.0, 0.0]]
    with pytest.raises(DataError, match="prompt must not be empty"):
        trie(name).score(model(), [row((7, 8), (True, True))])


# --- a step ------------------------------------------------------------------------------------


class SequenceRatio:
    """Geometric mean of a trajectory's ratios, clipped, as in GSPO: no function of one token."""

    def __call__(
        self,
        logp: torch.Tensor,
        old_logp: torch.Tensor,
        advantages: torch.Tensor,
        mask: torch.Tensor,
        *,
        trajectory_B: torch.Tensor,
    ) -> LossOut:
        same_BB = (trajectory_B[:, None] == trajectory_B).to(logp)
        log_ratio_B = same_BB @ torch.where(mask, logp - old_logp, 0.0).sum(-1)
        ratio_B = (log_ratio_B / (same_BB @ mask.sum(-1).to(logp)).clamp(min=1)).exp()
        ratio = ratio_B[:, None].expand_as(logp)
        return LossOut(
            loss_BT=-torch.minimum(ratio * advantages, ratio.clamp(0.8, 1.3) * advantages)
        )


@each_executor
def test_sequence_ratios_are_exact_however_the_step_is_cut(name: str) -> None:
    taken = []
    cuts: list[tuple[Scorer, int]] = [(Padded(), 10_000)]
    for scorer, budget in (*cuts, *((trie(name), b) for b in (10_000, 25, 1))):
        module = tiny_policy(seed=2).module
        before = weights(module)
        metrics = step(module, train_rows(), loss=SequenceRatio(), budget=budget, scorer=scorer)
        after = weights(module)
        taken.append({key: after[key] - before[key] for key in before})
        told = metrics.pop("trie/real_per_unique", None)
        assert (told is None) == isinstance(scorer, Padded)
    assert sum(float(change.abs().sum()) for change in taken[0].values()) > 1
    for other in taken[1:]:
        for key, change in taken[0].items():
            torch.testing.assert_close(other[key], change, rtol=1e-4, atol=2e-6)


# --- what is computed ----------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "passes"), [("segment", 1), ("dfs", 1)])
def test_every_token_is_forwarded_once_and_parents_alone_have_logits(
    name: str, passes: int
) -> None:
    module, scorer = model(), trie(name)
    scorer.check(module)
    tokens, logits = [], []
    module.get_input_embeddings().register_forward_hook(
        lambda _, i, __: tokens.append(i[0].numel())
    )
    module.get_output_embeddings().register_forward_hook(
        lambda _, i, __: logits.append(i[0].shape[1])
    )
    with evaluating(module):
        found = scorer.score(module, ROWS)
    forest = Forest.of(ROWS)
    assert sum(tokens) == forest.unique * passes
    assert sum(logits) == len(Wanted.of(ROWS, forest).parents_R)
    told = found.metrics["trie/real_per_unique"]
    assert (told.total, told.weight) == (forest.real, forest.unique)
    assert told.mean > 1.2


def kept_bytes(name: str, rows: list[Row]) -> int:
    """Bytes of distinct storages that are kept for the backward pass."""
    module, scorer = model(), trie(name)
    scorer.check(module)
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        scores = scorer.score(module, rows)
    scores.logp_BT.sum().backward()
    return sum(kept.values())


def test_depth_first_keeps_nothing_of_the_tree_for_the_backward_pass() -> None:
    rows = bushy(Random(0), depth=3, length=24)
    assert kept_bytes("dfs", rows) < 0.15 * kept_bytes("segment", rows)
