"""Divergence estimates: values, and which gradient each has in a loss."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from agentrl.algo.kl import K1, K2, K3, K3Plus
from agentrl.core.errors import ConfigError
from agentrl.core.protocols import Kl

GENERATOR = torch.Generator().manual_seed(3)
LOGITS, REFERENCE, OLDER = torch.randn(3, 3, generator=GENERATOR, dtype=torch.float64)


def value(kl: Kl, d: float) -> float:
    logp = torch.tensor(d, dtype=torch.float64)
    return float(kl(logp, torch.zeros_like(logp), logp))


@pytest.mark.parametrize(
    ("ratio", "k1", "k2", "k3"),
    [(1.2, 0.18232, 0.01662, 0.01565), (1 / 1.2, -0.18232, 0.01662, 0.01768)],
)
def test_values(ratio: float, k1: float, k2: float, k3: float) -> None:
    d = math.log(ratio)
    got = [value(kl, d) for kl in (K1(beta=1), K2(beta=1), K3(beta=1), K3Plus(beta=1))]
    assert got == pytest.approx([k1, k2, k3, k3], abs=1e-5)


def test_beta_scales() -> None:
    assert value(K3(beta=0.02), 0.5) == pytest.approx(0.02 * value(K3(beta=1), 0.5))


def expectation_and_gradient(
    kl: Kl, sampled_by: torch.Tensor = LOGITS
) -> tuple[torch.Tensor, torch.Tensor]:
    """Exact mean over what `sampled_by` samples, and of the gradient of a loss that is the
    estimate."""
    z = LOGITS.clone().requires_grad_()
    estimate = kl(z.log_softmax(-1), REFERENCE.log_softmax(-1), sampled_by.log_softmax(-1))
    p = sampled_by.softmax(-1)
    gradient: torch.Tensor = torch.autograd.grad((p * estimate).sum(), z)[0]
    return (p * estimate).sum().detach(), gradient


def divergence(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    kl: torch.Tensor = (a.softmax(-1) * (a.log_softmax(-1) - b.log_softmax(-1))).sum()
    return kl


def gradient_of(swap: bool) -> torch.Tensor:
    z = LOGITS.clone().requires_grad_()
    kl = divergence(REFERENCE, z) if swap else divergence(z, REFERENCE)
    gradient: torch.Tensor = torch.autograd.grad(kl, z)[0]
    return gradient


def close(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def test_k1_and_k3_have_the_divergence_as_their_mean() -> None:
    exact = divergence(LOGITS, REFERENCE)
    for kl in (K1(beta=1), K3(beta=1), K3Plus(beta=1)):
        close(expectation_and_gradient(kl)[0], exact)
    assert not torch.isclose(expectation_and_gradient(K2(beta=1))[0], exact)


def test_each_has_its_own_gradient_in_a_loss() -> None:
    forward, backward = gradient_of(swap=False), gradient_of(swap=True)
    close(expectation_and_gradient(K1(beta=1))[1], torch.zeros_like(forward))
    close(expectation_and_gradient(K2(beta=1))[1], forward)
    close(expectation_and_gradient(K3Plus(beta=1))[1], forward)
    close(expectation_and_gradient(K3(beta=1))[1], backward)
    assert not torch.allclose(forward, backward, atol=1e-3)


@pytest.mark.parametrize("sampled_by", [LOGITS, OLDER], ids=["on_policy", "older_weights"])
def test_corrected_k1_and_k3_have_value_and_gradient_of_the_divergence(
    sampled_by: torch.Tensor,
) -> None:
    for kl in (K1(beta=1, corrected=True), K3(beta=1, corrected=True)):
        mean, gradient = expectation_and_gradient(kl, sampled_by)
        close(mean, divergence(LOGITS, REFERENCE))
        close(gradient, gradient_of(swap=False))


def test_uncorrected_estimates_of_older_weights_tokens_are_biased() -> None:
    mean, gradient = expectation_and_gradient(K3(beta=1), OLDER)
    assert not torch.isclose(mean, divergence(LOGITS, REFERENCE), atol=1e-3)
    assert not torch.allclose(gradient, gradient_of(swap=False), atol=1e-3)


def test_a_reward_has_no_gradient_to_correct() -> None:
    with pytest.raises(ConfigError, match="corrected: only for placement=loss"):
        K1(placement="reward", corrected=True)


@given(st.floats(-60, 60))
def test_k3_is_never_negative_and_stays_within_ten(d: float) -> None:
    assert 0 <= value(K3(beta=1), d) <= 10
    assert value(K3Plus(beta=1), d) == value(K3(beta=1), d)
    assert value(K3(beta=1), 0.0) == 0


def test_extreme_log_ratios_are_clamped() -> None:
    assert value(K1(beta=1), 90) == 20
    assert value(K2(beta=1), -90) == 200
