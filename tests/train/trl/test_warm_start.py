"""The warm start by TRL: what it trains, when it stops, and what it leaves behind."""

import copy
import sys
from dataclasses import replace

import pytest
import torch

from agentrl.core.config import Lora, Sft
from agentrl.core.errors import ConfigError, TrainingError
from agentrl.core.types import Row
from agentrl.engines.policy import LoadedPolicy
from agentrl.train.lora import add_lora
from agentrl.train.trl import sft
from support.models import logprobs, nll, row, row_of, tiny_policy
from support.steps import weights

pytestmark = pytest.mark.trl


def demos(policy: LoadedPolicy) -> list[Row]:
    return [
        row_of(policy, "wall ahead", "turn left", "red ball", "go forward"),
        row_of(policy, "red ball ahead", "go forward"),
    ]


def mean_nll(module: torch.nn.Module, rows: list[Row]) -> float:
    """Mean over all masked tokens, each row alone."""
    with torch.no_grad():
        parts = [(float(nll(module, one)) * sum(one.mask), sum(one.mask)) for one in rows]
    return sum(a for a, _ in parts) / sum(n for _, n in parts)


def test_the_loss_is_the_mean_over_masked_tokens() -> None:
    policy = tiny_policy()
    rows = demos(policy)
    expected = mean_nll(policy.module, rows)
    result = sft(policy, rows, rows, Sft(lr=1e-2, max_steps=8, eval_every=4), seed=0)
    assert [step for step, _ in result.dev_losses] == [0, 4, 8]
    assert result.dev_losses[0][1] == pytest.approx(expected, abs=1e-5)
    assert result.dev_losses[-1][1] == pytest.approx(mean_nll(policy.module, rows), abs=1e-5)
    assert result.dev_losses[-1][1] < 0.7 * expected
    assert (result.steps, result.best_step, result.is_exhausted) == (8, 8, True)


def test_tokens_off_the_mask_are_not_trained() -> None:
    plain, tailed = tiny_policy(), tiny_policy()
    rows = demos(plain)
    tail = tuple(range(50, 70))
    longer = [row((*one.ids, *tail), (*one.mask, *(False,) * len(tail))) for one in rows]
    settings = Sft(lr=1e-2, max_steps=2, eval_every=1)
    sft(plain, rows, rows, settings, seed=0)
    sft(tailed, longer, rows, settings, seed=0)
    for name, weight in weights(plain.module).items():
        torch.testing.assert_close(weights(tailed.module)[name], weight, rtol=0, atol=1e-5)


def test_it_stops_by_itself_and_keeps_the_best_weights() -> None:
    policy = tiny_policy()
    train = [row_of(policy, "wall ahead", "turn left")]
    dev = [row_of(policy, "wall ahead", "turn right")]
    settings = Sft(lr=2e-2, max_steps=100, eval_every=1, patience=2)
    result = sft(policy, train, dev, settings, seed=0)
    losses = dict(result.dev_losses)
    assert not result.is_exhausted
    assert result.steps < 100
    assert result.best_step == min(losses, key=lambda step: losses[step]) < result.steps
    assert result.steps - result.best_step == settings.patience
    assert mean_nll(policy.module, dev) == pytest.approx(losses[result.best_step], abs=1e-5)


def test_it_ends_at_its_last_step_inside_an_epoch_too() -> None:
    policy = tiny_policy()
    rows = demos(policy)
    settings = Sft(lr=1e-2, batch_rows=1, max_steps=3, eval_every=3)
    result = sft(policy, rows, rows, settings, seed=0)
    assert [step for step, _ in result.dev_losses] == [0, 3]
    assert (result.steps, result.is_exhausted) == (3, True)


def test_weights_that_training_makes_worse_stay_as_they_were() -> None:
    policy = tiny_policy()
    before = weights(policy.module)
    rows = demos(policy)
    other = [replace(one, ids=tuple(reversed(one.ids))) for one in rows]
    result = sft(policy, rows, other, Sft(lr=0.5, max_steps=6, eval_every=2), seed=0)
    assert result.best_step == 0
    for name, weight in weights(policy.module).items():
        assert torch.equal(weight, before[name])


def test_the_same_seed_gives_the_same_weights() -> None:
    first, second = tiny_policy(), tiny_policy()
    for number, policy in enumerate((first, second)):
        torch.manual_seed(number)
        sft(policy, demos(policy), demos(policy), Sft(max_steps=3, batch_rows=1), seed=5)
    for name, weight in weights(first.module).items():
        assert torch.equal(weights(second.module)[name], weight)


def test_a_module_comes_back_in_one_piece() -> None:
    policy = tiny_policy()
    config = copy.deepcopy(policy.module.config)
    rows = demos(policy)
    sft(policy, rows, rows, Sft(max_steps=1), seed=0)
    assert not policy.module.training
    assert all(weight.grad is None for weight in policy.module.parameters())
    assert policy.module.config == config
    twin = copy.deepcopy(policy.module)
    before = logprobs(twin, rows[0].ids)
    with torch.no_grad():
        for weight in policy.module.parameters():
            weight.zero_()
    torch.testing.assert_close(logprobs(twin, rows[0].ids), before, rtol=0, atol=0)


def test_adapters_alone_are_trained() -> None:
    policy = tiny_policy()
    policy.module = add_lora(policy.module, Lora(rank=4), seed=0)
    frozen = {
        name: weight.detach().clone()
        for name, weight in policy.module.named_parameters()
        if not weight.requires_grad
    }
    rows = demos(policy)
    result = sft(policy, rows, rows, Sft(lr=1e-2, max_steps=6, eval_every=3), seed=0)
    assert result.dev_losses[-1][1] < result.dev_losses[0][1]
    assert result.dev_losses[-1][1] == pytest.approx(mean_nll(policy.module, rows), abs=1e-5)
    for name, weight in frozen.items():
        assert torch.equal(policy.module.get_parameter(name), weight)


def test_a_dev_loss_that_is_not_a_number_stops_the_run() -> None:
    policy = tiny_policy()
    rows = demos(policy)
    with torch.no_grad():
        next(policy.module.parameters()).fill_(float("nan"))
    with pytest.raises(TrainingError, match=r"dev loss is nan after 0 steps; lower sft\.lr"):
        sft(policy, rows, rows, Sft(max_steps=1), seed=0)


def test_without_trl_the_way_out_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trl", None)
    policy = tiny_policy()
    with pytest.raises(ConfigError, match=r"sft needs trl .*pip install trl datasets"):
        sft(policy, demos(policy), demos(policy), Sft(), seed=0)
