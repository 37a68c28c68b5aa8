"""The clipped surrogate: its values, its gradient, and what it must not look at."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from agentrl.algo.losses.ppo_clip import PpoClip
from agentrl.core.errors import ConfigError

LOSS = PpoClip(low=0.2, high=0.28)
finite = st.floats(-3, 3)


def of(
    loss: PpoClip, logp: torch.Tensor, old: torch.Tensor, advantages: torch.Tensor
) -> torch.Tensor:
    mask = torch.ones_like(logp, dtype=torch.bool)
    return loss(logp, old, advantages, mask, trajectory_B=torch.arange(len(logp))).loss_BT


def at(loss: PpoClip, ratio: float, advantage: float) -> float:
    logp = torch.tensor([[math.log(ratio)]], dtype=torch.float64)
    return float(of(loss, logp, torch.zeros_like(logp), torch.full_like(logp, advantage)))


@pytest.mark.parametrize(
    ("ratio", "advantage", "expected"),
    [(1.5, 1, -1.28), (0.5, 1, -0.5), (1.5, -1, 1.5), (0.5, -1, 0.8), (5, -1, 3)],
)
def test_values_of_clip_higher_with_a_dual_clip(
    ratio: float, advantage: float, expected: float
) -> None:
    assert at(PpoClip(low=0.2, high=0.28, dual=3.0), ratio, advantage) == pytest.approx(expected)


@given(st.floats(0.05, 20), finite, st.floats(1.3, 9))
def test_delta_bounds_what_a_dual_clip_bounds(ratio: float, advantage: float, most: float) -> None:
    two_sided = at(PpoClip(high=0.28, delta=most), ratio, advantage)
    assert two_sided == pytest.approx(at(PpoClip(high=0.28, dual=most), ratio, advantage))
    if advantage < 0:
        assert two_sided <= -advantage * most * (1 + 1e-9)


def test_a_token_beyond_delta_has_no_gradient() -> None:
    for loss in (PpoClip(delta=4.0), PpoClip(dual=4.0)):
        logp = torch.tensor([[math.log(5.0), math.log(3.0)]], requires_grad=True)
        of(loss, logp, torch.zeros(1, 2), torch.full((1, 2), -1.0)).sum().backward()
        assert logp.grad is not None
        assert logp.grad.tolist() == [pytest.approx([0.0, 3.0])]


def test_a_delta_that_would_clip_too_much_or_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"delta: must be above 1 \+ high = 1\.28"):
        PpoClip(high=0.28, delta=1.28)
    with pytest.raises(ConfigError, match="delta: bounds the same loss as dual"):
        PpoClip(dual=3.0, delta=3.0)


def test_without_a_dual_clip_bad_tokens_cost_their_whole_ratio() -> None:
    assert at(LOSS, 5, -1) == pytest.approx(5)


@pytest.mark.parametrize(("ratio", "advantage"), [(1.3, 1.0), (0.7, -1.0)])
def test_clipped_tokens_have_no_gradient(ratio: float, advantage: float) -> None:
    logp = torch.tensor([[math.log(ratio)]], requires_grad=True)
    of(LOSS, logp, torch.zeros(1, 1), torch.full((1, 1), advantage)).sum().backward()
    assert logp.grad is not None
    assert float(logp.grad) == 0.0


@given(st.lists(finite, min_size=3, max_size=3), st.lists(finite, min_size=3, max_size=3))
def test_on_policy_the_gradient_is_minus_a_times_that_of_logp(
    advantages: list[float], logits: list[float]
) -> None:
    z = torch.tensor(logits, dtype=torch.float64, requires_grad=True)
    a = torch.tensor([advantages], dtype=torch.float64)
    logp = z.log_softmax(-1)[None]
    (got,) = torch.autograd.grad(of(LOSS, logp, logp.detach(), a).sum(), z)
    (plain,) = torch.autograd.grad((-a * z.log_softmax(-1)).sum(), z)
    torch.testing.assert_close(got, plain, rtol=1e-9, atol=1e-12)


def test_the_gradient_is_that_of_the_values() -> None:
    generator = torch.Generator().manual_seed(0)
    logp, old, advantages = (
        torch.randn(3, 5, generator=generator, dtype=torch.float64) for _ in range(3)
    )
    for loss in (LOSS, PpoClip(dual=2.0)):
        assert torch.autograd.gradcheck(
            lambda x, loss=loss: of(loss, x, old, advantages), (logp.requires_grad_(),)
        )


def test_advantages_carry_no_gradient_into_the_ratio_of_other_tokens() -> None:
    logp = torch.zeros(2, 3, requires_grad=True)
    advantages = torch.tensor([[1.0, 0.0, -1.0], [0.0, 0.0, 0.0]])
    of(LOSS, logp, torch.zeros(2, 3), advantages).sum().backward()
    torch.testing.assert_close(logp.grad, -advantages)


def test_extreme_ratios_stay_finite() -> None:
    logp = torch.tensor([[90.0, -90.0, 0.0]], requires_grad=True)
    loss = of(LOSS, logp, torch.zeros(1, 3), torch.tensor([[-1.0, -1.0, 1.0]]))
    assert torch.isfinite(loss).all()
    assert float(loss.detach()[0, 0]) == pytest.approx(math.exp(20), rel=1e-4)


def test_metrics_count_masked_tokens_alone() -> None:
    ratios = torch.tensor([[0.5, 1.5, 1.5, 9.0]])
    advantages = torch.tensor([[-1.0, 1.0, -1.0, 1.0]])
    mask = torch.tensor([[True, True, True, False]])
    out = LOSS(ratios.log(), torch.zeros(1, 4), advantages, mask, trajectory_B=torch.zeros(1))
    assert out.metrics["loss/clip_low"].mean == pytest.approx(1 / 3)
    assert out.metrics["loss/clip_high"].mean == pytest.approx(1 / 3)
    assert out.metrics["loss/ratio"].mean == pytest.approx(3.5 / 3)
