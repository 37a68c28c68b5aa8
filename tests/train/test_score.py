"""The padded scorer against plain forwards of one row at a time, and what it must not look at."""

import copy
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from agentrl.algo.aggregate import Constant, SequenceMeanTokenMean, TokenMean
from agentrl.algo.kl import K3
from agentrl.core.config import Lora
from agentrl.core.errors import DataError
from agentrl.core.protocols import Aggregate
from agentrl.core.types import Row
from agentrl.engines.policy import load_policy
from agentrl.train.lora import add_lora
from agentrl.train.score import Padded, evaluating, padded
from support.models import logprobs, row, save_model, shared_policy, tiny_policy
from support.steps import step, train_rows, weights

POLICY = shared_policy()
ROWS = [item.row for item in train_rows()]


def by_hand(module: torch.nn.Module, one: Row) -> torch.Tensor:
    """`[T]` logprobs of the row's sampled tokens, zero elsewhere, from the row alone."""
    logp = torch.cat([torch.zeros(1), logprobs(module, one.ids, one.temperature)])
    return logp * torch.tensor(one.mask)


@pytest.mark.parametrize("temperature", [0.7, 1.0, 1.6])
@pytest.mark.parametrize("chunk", [1, 5, 2048])
def test_padded_equals_one_row_at_a_time(temperature: float, chunk: int) -> None:
    rows = [replace(one, temperature=temperature) for one in ROWS]
    got = Padded(chunk=chunk).score(POLICY.module, rows).logp_BT
    for one, logp_T in zip(rows, got, strict=True):
        expected = by_hand(POLICY.module, one)
        torch.testing.assert_close(logp_T[: len(one.ids)], expected, rtol=0, atol=1e-5)
        assert not logp_T[len(one.ids) :].any()


def test_rows_of_one_batch_keep_their_own_temperature() -> None:
    rows = [replace(one, temperature=t) for one in ROWS[:2] for t in (0.5, 1.5)]
    got = Padded().score(POLICY.module, rows).logp_BT
    for one, logp_T in zip(rows, got, strict=True):
        expected = by_hand(POLICY.module, one)
        torch.testing.assert_close(logp_T[: len(one.ids)], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("architecture", ["llama", "qwen3"])
def test_padding_changes_no_architecture(
    tmp_path_factory: pytest.TempPathFactory, architecture: str
) -> None:
    folder = save_model(tmp_path_factory.mktemp(architecture), architecture)  # type: ignore[arg-type]
    module = load_policy(str(folder), seed=0, device="cpu").module
    got = Padded().score(module, ROWS).logp_BT
    for one, logp_T in zip(ROWS, got, strict=True):
        expected = by_hand(module, one)
        torch.testing.assert_close(logp_T[: len(one.ids)], expected, rtol=0, atol=1e-5)


def test_entropies_are_those_of_the_tempered_distributions_and_carry_no_gradient() -> None:
    one = replace(ROWS[1], temperature=0.6)
    scores = Padded().score(POLICY.module, [one])
    logits = POLICY.module(input_ids=torch.tensor([one.ids])).logits[0].detach() / 0.6
    for t, is_sampled in enumerate(one.mask):
        p = logits[t - 1].double().softmax(-1)
        expected = float(-(p * p.log()).sum()) if is_sampled else 0.0
        assert float(scores.entropy_BT[0, t]) == pytest.approx(expected, abs=1e-5)
    assert not scores.entropy_BT.requires_grad
    assert scores.logp_BT.requires_grad


class Fixed(torch.nn.Module):
    """A model that gives the same logits everywhere."""

    def __init__(self, logits: list[float]) -> None:
        super().__init__()
        self.logits = torch.nn.Parameter(torch.tensor(logits))

    def forward(
        self, *, input_ids: torch.Tensor, logits_to_keep: torch.Tensor, **_: object
    ) -> SimpleNamespace:
        shape = len(input_ids), len(logits_to_keep), len(self.logits)
        return SimpleNamespace(logits=self.logits.expand(shape))


@pytest.mark.parametrize(("temperature", "entropy"), [(1.0, 0.8324), (0.85, 0.7569), (0.6, 0.5568)])
def test_the_entropy_rises_with_the_sampling_temperature(
    temperature: float, entropy: float
) -> None:
    one = row((0, 1, 2), (False, True, True), temperature=temperature)
    scores = Padded().score(Fixed([2.0, 1.0, 0.0]), [one])
    assert scores.entropy_BT[0].tolist() == pytest.approx([0, entropy, entropy], abs=1e-4)


def test_entropies_carry_a_gradient_where_it_is_asked_for() -> None:
    one = row((0, 1), (False, True), temperature=0.5)
    module = Fixed([2.0, 1.0, -1000.0])  # of which the last has probability 0
    plain = Padded().score(module, [one])
    scores = Padded().score(module, [one], entropy_grad=True)
    torch.testing.assert_close(scores.entropy_BT.detach(), plain.entropy_BT)
    torch.testing.assert_close(scores.logp_BT, plain.logp_BT)
    scores.entropy_BT.sum().backward()
    p = torch.tensor([4.0, 2.0]).double().softmax(-1)
    by_hand = -2.0 * p * (p.log() + float(plain.entropy_BT.sum()))
    assert module.logits.grad is not None
    assert module.logits.grad.tolist() == pytest.approx([*by_hand.tolist(), 0.0], abs=1e-5)


def test_the_gradient_is_that_of_the_sampled_tokens_alone() -> None:
    first, second = (copy.deepcopy(POLICY.module) for _ in range(2))
    coefficients = torch.randn(len(ROWS), 12, generator=torch.Generator().manual_seed(0))
    (Padded().score(first, ROWS).logp_BT * coefficients).sum().backward()
    for one, c in zip(ROWS, coefficients, strict=True):
        (by_hand(second, one) * c[: len(one.ids)]).sum().backward()
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-5)


def test_nothing_behind_the_last_sampled_token_is_seen() -> None:
    ids, mask = (7, 8, 9, 10, 11, 12), (False, False, True, True, False, False)
    plain, changed = row(ids, mask), row((*ids[:4], 200, 201), mask)
    short = row(ids[:4], mask[:4])
    longer = row(range(20, 40), [False, True] * 10)
    scores = [Padded().score(POLICY.module, [one, longer]) for one in (plain, changed, short)]
    for other in scores[1:]:
        torch.testing.assert_close(other.logp_BT, scores[0].logp_BT, rtol=0, atol=1e-6)
        torch.testing.assert_close(other.entropy_BT, scores[0].entropy_BT, rtol=0, atol=1e-6)


def test_an_observation_before_a_sampled_token_is_seen() -> None:
    mask = (False, True, False, True)
    rows = [row((7, 8, observed, 10), mask) for observed in (9, 90)]
    (_, a1, _, a3), (_, b1, _, b3) = Padded().score(POLICY.module, rows).logp_BT.tolist()
    assert a1 == pytest.approx(b1, abs=1e-6)
    assert abs(a3 - b3) > 1e-3


def test_rows_without_a_sampled_token_score_nothing() -> None:
    scores = Padded().score(POLICY.module, [row((7, 8, 9), (False,) * 3)])
    assert scores.logp_BT.tolist() == [[0.0, 0.0, 0.0]]


def test_a_row_that_begins_with_a_sampled_token_is_refused() -> None:
    with pytest.raises(DataError, match="prompt must not be empty"):
        Padded().score(POLICY.module, [row((7, 8), (True, True))])


def test_padding_is_filled_as_asked() -> None:
    assert padded([[1, 2], [3]], torch.long, fill=-1).tolist() == [[1, 2], [3, -1]]


def test_evaluating_restores_the_mode_and_stops_gradients() -> None:
    module = copy.deepcopy(POLICY.module).train()
    with evaluating(module):
        assert not module.training
        assert not Padded().score(module, ROWS[:1]).logp_BT.requires_grad
    assert module.training


# --- the cut into micro-batches ------------------------------------------------------------------


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize(
    "aggregate", [TokenMean(), SequenceMeanTokenMean(), Constant(length=10)], ids=repr
)
def test_the_step_does_not_depend_on_how_the_batch_was_cut(
    aggregate: Aggregate, lora: bool
) -> None:
    taken = []
    for budget in (1, 20, 10_000):
        module = tiny_policy(seed=2).module
        if lora:
            module = add_lora(module, Lora(rank=4), seed=1)
        before = weights(module)
        step(module, train_rows(), aggregate=aggregate, budget=budget)
        after = weights(module)
        taken.append({name: after[name] - before[name] for name in before})
    assert sum(float(change.abs().sum()) for change in taken[0].values()) > 1
    for other in taken[1:]:
        for name, change in taken[0].items():
            torch.testing.assert_close(other[name], change, rtol=1e-4, atol=1e-6)


def test_metrics_do_not_depend_on_how_the_batch_was_cut() -> None:
    rows = [replace(item, ref_logprobs=item.old_logprobs) for item in train_rows()]
    found = [
        step(tiny_policy(seed=2).module, rows, kl=K3(beta=0.1), budget=budget)
        for budget in (1, 10_000)
    ]
    assert set(found[0]) == set(found[1])
    for key, value in found[0].items():
        assert value.mean == pytest.approx(found[1][key].mean, rel=1e-4, abs=1e-6), key
