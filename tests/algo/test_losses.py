"""The numbers of each surrogate beside PPO's, worked by hand, and what sets it apart.

What holds for all of them (masks, padding, micro-batches, the gradient on policy) is in
`test_laws.py`.
"""

import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from agentrl.algo.drift import covariance, largest, with_slope
from agentrl.algo.losses.cispo import ClippedWeight
from agentrl.algo.losses.clip_cov import ClipCovariance
from agentrl.algo.losses.dppo import DivergenceProximal, binary_kl
from agentrl.algo.losses.dro import DirectReward
from agentrl.algo.losses.fipo import FutureKl, discounted_future
from agentrl.algo.losses.gmpo import GeometricMean
from agentrl.algo.losses.gspo import SequenceRatio
from agentrl.algo.losses.kl_cov import KlCovariance
from agentrl.algo.losses.ppo_clip import PpoClip
from agentrl.algo.losses.reinforce import Reinforce
from agentrl.algo.losses.sapo import SoftGate
from agentrl.algo.losses.vespo import VariationalSequence
from agentrl.core.errors import ConfigError
from agentrl.core.protocols import Loss

MOVED = (0.1, -0.05, 0.25)


def of(
    loss: Loss,
    log_ratios: Sequence[Sequence[float]],
    advantages: Sequence[Sequence[float]] | float,
    *,
    old: float = -2.0,
    one_trajectory: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Per-token losses and gradients `[B,T]` where nothing is masked."""
    moved = torch.tensor(log_ratios, dtype=torch.float64)
    before = torch.full_like(moved, old)
    logp = (before + moved).requires_grad_()
    a = torch.as_tensor(advantages, dtype=torch.float64).expand_as(moved)
    trajectory_B = torch.zeros(len(moved)) if one_trajectory else torch.arange(len(moved))
    mask = torch.ones_like(moved, dtype=torch.bool)
    out = loss(logp, before, a, mask, trajectory_B=trajectory_B.long()).loss_BT
    [gradient] = torch.autograd.grad(out.sum(), logp)
    return out.detach(), gradient


def test_gspo_has_the_mean_ratio_and_not_the_product() -> None:
    loss, gradient = of(SequenceRatio(high=9.0), [MOVED], 2.0)
    assert loss.tolist() == [pytest.approx([-2 * 1.1052] * 3, abs=2e-4)]
    assert gradient.tolist() == loss.tolist()


def test_gspo_takes_the_rows_of_a_trajectory_together() -> None:
    rows, _ = of(SequenceRatio(high=9.0), [[0.1], [-0.05], [0.25]], 1.0, one_trajectory=True)
    assert rows.flatten().tolist() == pytest.approx([-math.exp(0.1)] * 3)


def test_a_trajectory_beyond_the_clip_of_gspo_has_no_gradient() -> None:
    for sign in (1.0, -1.0):
        _, gradient = of(SequenceRatio(), [[sign * 0.01] * 3], sign)
        assert not gradient.any()
        _, back = of(SequenceRatio(), [[sign * 0.01] * 3], -sign)
        assert back.all()


@pytest.mark.parametrize(("advantage", "ratio"), [(1.0, 1.0513), (-1.0, 1.1052)])
def test_gmpo_clips_log_ratios_on_the_side_of_the_advantage(advantage: float, ratio: float) -> None:
    loss, gradient = of(GeometricMean(low=0.1, high=0.1), [MOVED], advantage, old=0.0)
    assert loss.tolist() == [pytest.approx([-advantage * ratio] * 3, abs=1e-4)]
    clipped = [advantage > 0 and moved > 0.1 for moved in MOVED]
    assert [g == 0.0 for g in gradient[0].tolist()] == clipped


def test_gmpo_has_the_gradient_of_the_geometric_mean_times_the_length() -> None:
    moved = torch.tensor(MOVED, dtype=torch.float64, requires_grad=True)
    whole = -3.0 * moved.clamp(max=0.2).mean().exp()
    [expected] = torch.autograd.grad(3 * whole, moved)
    _, gradient = of(GeometricMean(high=0.2), [MOVED], 3.0)
    assert gradient[0].tolist() == pytest.approx(expected.tolist())


@pytest.mark.parametrize(
    ("loss", "ratio", "weight"),
    [
        (ClippedWeight(), 3.0, 3.0),
        (ClippedWeight(), 7.0, 5.0),
        (ClippedWeight(), 0.1, 0.1),
        (ClippedWeight(mode="clip", high=0.3), 3.0, 1.3),
        (ClippedWeight(mode="clip"), 0.1, 0.8),
    ],
)
def test_cispo_bounds_the_weight_and_keeps_the_gradient(
    loss: Loss, ratio: float, weight: float
) -> None:
    value, gradient = of(loss, [[math.log(ratio)]], -2.0)
    assert float(gradient) == pytest.approx(2.0 * weight)
    assert float(value) == pytest.approx(2.0 * weight * (-2.0 + math.log(ratio)))


@pytest.mark.parametrize(("ratio", "gate", "slope"), [(1.0, 2.0, 1.0), (1.5, 2.4898, 0.94)])
def test_the_gate_of_sapo(ratio: float, gate: float, slope: float) -> None:
    value, gradient = of(SoftGate(), [[math.log(ratio)]], 1.0)
    assert float(value) == pytest.approx(-gate, abs=1e-4)
    assert float(gradient) == pytest.approx(-slope * ratio, abs=1e-4)


@given(st.floats(0.2, 5.0), st.floats(0.2, 5.0))
def test_the_slope_of_sapo_is_one_on_policy_whatever_tau(up: float, down: float) -> None:
    for advantage in (2.0, -2.0):
        _, gradient = of(SoftGate(tau_positive=up, tau_negative=down), [[0.0]], advantage)
        assert float(gradient) == pytest.approx(-advantage)


@pytest.mark.parametrize(
    ("product", "advantage", "phi"),
    [(1, 1, 1.0), (1, -1, 1.0), (2, 1, 0.1992), (2, -1, 1.0827), (0.5, 1, 1.1204)],
)
def test_the_weight_of_vespo(product: float, advantage: float, phi: float) -> None:
    half = math.log(product) / 2
    _, gradient = of(VariationalSequence(), [[half, half]], float(advantage))
    assert gradient.tolist() == [pytest.approx([-advantage * phi] * 2, abs=1e-4)]


def test_vespo_multiplies_over_the_rows_of_a_trajectory() -> None:
    half = math.log(2.0) / 2
    _, gradient = of(VariationalSequence(), [[half], [half]], 1.0, one_trajectory=True)
    assert gradient.flatten().tolist() == pytest.approx([-0.1992] * 2, abs=1e-4)


@pytest.mark.parametrize("divergence", ["tv", "kl"])
def test_dppo_stops_only_what_would_go_further_out(divergence: str) -> None:
    loss = DivergenceProximal(divergence=divergence, radius=0.1)  # type: ignore[arg-type]
    far = math.log(0.8 / 0.4)
    for moved, advantage, goes_on in (
        (far, 1.0, False),
        (far, -1.0, True),
        (-far, -1.0, False),
        (-far, 1.0, True),
    ):
        _, gradient = of(loss, [[moved]], advantage, old=math.log(0.4))
        assert bool(gradient.any()) is goes_on


def test_dppo_lets_rare_tokens_move_where_ppo_would_clip() -> None:
    rare = math.log(1e-4)
    for loss in (DivergenceProximal(), DivergenceProximal(divergence="kl")):
        _, gradient = of(loss, [[math.log(3.0)]], 1.0, old=rare)
        assert float(gradient) == pytest.approx(-3.0)
    assert not of(PpoClip(), [[math.log(3.0)]], 1.0, old=rare)[1].any()
    _, capped = of(DivergenceProximal(), [[math.log(40.0)]], 1.0, old=rare)
    assert float(capped) == pytest.approx(-20.0)


def test_the_binary_kl_is_that_of_two_coins() -> None:
    p, q = torch.tensor([0.3], dtype=torch.float64), torch.tensor([0.6], dtype=torch.float64)
    by_hand = 0.3 * math.log(0.3 / 0.6) + 0.7 * math.log(0.7 / 0.4)
    assert float(binary_kl(p, q)) == pytest.approx(by_hand)
    assert float(binary_kl(p, p)) == pytest.approx(0.0)


def test_the_covariance_of_a_token() -> None:
    a = torch.tensor([[1.0, 1.0, -1.0, -1.0, 9.0]])
    logp = torch.tensor([[-0.1, -3.0, -0.2, -2.0, 5.0]])
    mask = torch.tensor([[True, True, True, True, False]])
    assert covariance(a, logp, mask)[0, :4].tolist() == pytest.approx(
        [1.225, -1.675, -1.125, 0.675], abs=1e-6
    )


SPREAD = [[-0.1, -3.0, -0.2, -2.0]]


def test_clip_cov_drops_one_of_the_tokens_within_its_bounds() -> None:
    a = [[1.0, 1.0, -1.0, -1.0]]
    _, gradient = of(ClipCovariance(low=0.9, high=30.0), SPREAD, a, old=0.0)
    assert [g == 0.0 for g in gradient[0].tolist()] == [True, False, False, False]
    _, none = of(ClipCovariance(low=0.9, high=30.0, floor=1.3), SPREAD, a, old=0.0)
    assert none.all()


def test_the_draw_of_clip_cov_takes_every_eligible_token_equally_often() -> None:
    generator = torch.Generator().manual_seed(3)
    drawn = torch.zeros(4)
    for _ in range(400):
        # The last four are alike in covariance up to noise that decides the draw.
        near = 0.01 * torch.rand(4, generator=generator, dtype=torch.float64)
        rows = torch.cat([torch.full((4,), -3.0, dtype=torch.float64), near])
        a = torch.tensor([-1.0] * 4 + [1.0] * 4)
        _, gradient = of(ClipCovariance(low=0.9, high=99.0), [rows.tolist()], [a.tolist()], old=0)
        drawn += (gradient[0, 4:] == 0.0).float()
    assert drawn.sum() == 400
    assert ((drawn - 100).abs() < 40).all()


def test_a_floor_above_the_ceiling_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"floor: must be below ceiling=5\.0"):
        ClipCovariance(floor=5.0)


def test_kl_cov_holds_back_the_token_of_the_largest_covariance() -> None:
    a = [[1.0, 1.0, -1.0, -1.0]]
    plain, _ = of(KlCovariance(coef=0.0), SPREAD, a, old=0.0)
    held, _ = of(KlCovariance(coef=0.5), SPREAD, a, old=0.0)
    assert (held - plain).tolist() == [pytest.approx([0.5 * 0.1, 0.0, 0.0, 0.0])]
    assert plain[0, 1] == pytest.approx(-math.exp(-3.0))


def test_reinforce_is_the_log_likelihood_and_may_be_weighed_by_the_ratio() -> None:
    loss, gradient = of(Reinforce(), [MOVED], 1.0)
    assert loss.tolist() == [pytest.approx([2.0 - m for m in MOVED])]
    assert gradient.tolist() == [[-1.0] * 3]
    _, weighed = of(Reinforce(weighted=True), [MOVED], 2.0)
    assert weighed.tolist() == [pytest.approx([-2.0 * math.exp(m) for m in MOVED])]


def test_the_penalty_of_dro_pulls_back_to_where_the_data_came_from() -> None:
    loss, gradient = of(DirectReward(beta=0.5), [[0.4, -0.4]], 1.0)
    assert loss.tolist() == [pytest.approx([2.0 - 0.4 + 0.04, 2.0 + 0.4 + 0.04])]
    assert gradient.tolist() == [pytest.approx([-1.0 + 0.2, -1.0 - 0.2])]
    _, at_rest = of(DirectReward(beta=0.5), [[2.0]], 1.0)
    assert float(at_rest) == pytest.approx(0.0), "its optimum is log r = A / beta"


def test_the_weights_of_fipo() -> None:
    moved = torch.tensor([[0.1, -0.2, 0.05]], dtype=torch.float64)
    every = torch.ones_like(moved, dtype=torch.bool)
    future = discounted_future(moved, every, 2 ** (-1 / 32))
    assert future[0].tolist() == pytest.approx([-0.0478, -0.1511, 0.05], abs=1e-4)
    _, gradient = of(FutureKl(low=0.9, high=9.0), moved.tolist(), 1.0)
    weights = (-gradient / moved.exp())[0].tolist()
    assert weights == pytest.approx([0.9533, 0.8598, 1.0513], abs=1e-4)
    _, raised = of(FutureKl(low=0.9, high=9.0, high_only=True), moved.tolist(), 1.0)
    assert (-raised / moved.exp())[0].tolist() == pytest.approx([1.0, 1.0, 1.0513], abs=1e-4)
    _, bounded = of(FutureKl(low=0.9, high=9.0), [[0.5, 0.5]], 1.0)
    assert (-bounded / math.exp(0.5))[0].tolist() == pytest.approx([1.2, 1.2])


def test_what_an_env_says_between_two_turns_does_not_age_fipo_s_future() -> None:
    x = torch.tensor([[0.1, 7.0, 7.0, -0.2, 0.05]], dtype=torch.float64)
    mask = torch.tensor([[True, False, False, True, True]])
    spread = discounted_future(x, mask, 0.5)[mask]
    assert spread.tolist() == pytest.approx([0.1 - 0.1 + 0.0125, -0.2 + 0.025, 0.05])


def test_the_largest_are_found_row_by_row_as_they_are_found_at_once() -> None:
    generator = torch.Generator().manual_seed(3)
    values_BT = torch.randn(7, 9, generator=generator, dtype=torch.float64)
    for count in (1, 5, 20, 63):
        at_once = torch.zeros(63, dtype=torch.bool)
        at_once[values_BT.flatten().topk(count).indices] = True
        assert torch.equal(largest(values_BT, count), at_once.view(7, 9))


def test_a_value_with_a_slope_of_its_own_has_both() -> None:
    logp = torch.tensor([[-1.0, -2.0]], requires_grad=True)
    found = with_slope(torch.tensor([[5.0, 6.0]]), torch.tensor([[0.5, -3.0]]), logp)
    found.sum().backward()
    assert found.tolist() == [[5.0, 6.0]]
    assert logp.grad is not None
    assert logp.grad.tolist() == [[0.5, -3.0]]
