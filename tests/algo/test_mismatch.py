"""Weights of tokens that another policy sampled."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from agentrl.algo.aggregate import TokenMean
from agentrl.algo.losses.ppo_clip import PpoClip
from agentrl.algo.mismatch import TruncatedImportance
from agentrl.train.objective import Objective
from support.credit import batch, scores

TIS = TruncatedImportance(cap=2.0)


def test_weights_and_metrics_of_three_tokens() -> None:
    old = torch.tensor([[0.0, 1.2, -0.7, 5.0]], requires_grad=True)
    mask = torch.tensor([[True, True, True, False]])
    weights, metrics = TIS(old, torch.zeros(1, 4), mask)
    assert weights.tolist() == [pytest.approx([1, 2, 0.4966, 1], abs=1e-4)]
    assert not weights.requires_grad
    assert metrics["mismatch/ratio"].mean == pytest.approx((1 + 3.3201 + 0.4966) / 3, abs=1e-4)
    assert metrics["mismatch/capped"].mean == pytest.approx(1 / 3)


@given(st.lists(st.floats(-90, 90), min_size=1), st.floats(0.5, 5))
def test_weights_lie_between_zero_and_the_cap(differences: list[float], cap: float) -> None:
    old = torch.tensor([differences])
    mask = torch.ones_like(old, dtype=torch.bool)
    weights, _ = TruncatedImportance(cap=cap)(old, torch.zeros_like(old), mask)
    assert float(weights.min()) > 0
    assert float(weights.max()) <= cap * (1 + 1e-6)


def test_where_sampler_and_trainer_agree_the_loss_keeps_its_bits() -> None:
    generator = torch.Generator().manual_seed(1)
    old, advantages, noise = (torch.randn(3, 6, generator=generator) for _ in range(3))
    logp = old + 0.3 * noise
    mask = torch.rand(3, 6, generator=generator) < 0.6
    step = batch(mask, advantages, old_BT=old, sampler_BT=old)
    losses = [
        Objective(loss=PpoClip(), aggregate=TokenMean(), mismatch=mismatch)(step, scores(logp))[0]
        for mismatch in (None, TIS)
    ]
    assert torch.equal(*losses)
    assert math.isfinite(float(losses[0]))
