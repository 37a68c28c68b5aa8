"""Weights of tokens that another policy sampled."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from agentrl.algo.aggregate import TokenMean
from agentrl.algo.drift import drift_metrics, weight_metrics
from agentrl.algo.losses.ppo_clip import PpoClip
from agentrl.algo.mismatch.divergence import DivergenceRejection
from agentrl.algo.mismatch.geometric import GeometricRejection
from agentrl.algo.mismatch.mis import MaskedImportance
from agentrl.algo.mismatch.normalised import Normalised
from agentrl.algo.mismatch.off_policy import OffPolicyMask
from agentrl.algo.mismatch.product import Product
from agentrl.algo.mismatch.sequence import SequenceImportance
from agentrl.algo.mismatch.tis import TruncatedImportance
from agentrl.core.errors import ConfigError
from agentrl.core.protocols import Mismatch
from agentrl.core.types import Sum, merge_metrics
from agentrl.train.objective import Objective
from support.credit import batch, scores

DIFFERENCES = [0.0, 1.2, -0.7]
"""`old - sampler` of three tokens: ratios 1, 3.3201, 0.4966, product 1.6487, geometric 1.1814."""


def weigh(
    part: Mismatch,
    rows: list[list[float]],
    *,
    advantage: float = 1.0,
    trajectories: list[int] | None = None,
) -> tuple[list[list[float]], dict[str, Sum]]:
    """Weights of rows of log differences, each a trajectory of its own unless said otherwise."""
    width = max(map(len, rows))
    old = torch.tensor([row + [9.0] * (width - len(row)) for row in rows], dtype=torch.float64)
    mask = torch.tensor([[t < len(row) for t in range(width)] for row in rows])
    weights, metrics = part(
        old.requires_grad_(),
        torch.zeros_like(old),
        mask,
        logp=old.detach(),
        advantages=torch.full_like(old, advantage),
        trajectory_B=torch.tensor(trajectories or list(range(len(rows)))),
    )
    assert not weights.requires_grad
    assert (weights[~mask] == 1).all()
    return [w[: len(row)] for w, row in zip(weights.tolist(), rows, strict=True)], dict(metrics)


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (TruncatedImportance(), [1, 2, 0.4966]),
        (MaskedImportance(), [1, 0, 0.4966]),
        (MaskedImportance(floor=0.5, cap=4.0), [1, 3.3201, 0]),
        (SequenceImportance(cap=3.0), [1.6487] * 3),
        (SequenceImportance(cap=1.5), [0] * 3),
        (SequenceImportance(cap=1.5, mode="truncate"), [1.5] * 3),
        (SequenceImportance(floor=1.7, cap=2.0, mode="truncate"), [1.7] * 3),
        (SequenceImportance(floor=1.7, cap=2.0), [0] * 3),
        (GeometricRejection(high=1.1815), [1] * 3),
        (GeometricRejection(high=1.1813), [0] * 3),
        (DivergenceRejection(estimate="k3", limit=0.4390), [1] * 3),
        (DivergenceRejection(estimate="k3", limit=0.4388), [0] * 3),
        (DivergenceRejection(estimate="k2", limit=0.3218), [1] * 3),
        (DivergenceRejection(estimate="k2", limit=0.3216), [0] * 3),
        (Normalised(), [3 / 3.4966, 6 / 3.4966, 3 * 0.4966 / 3.4966]),
        (Product(parts=(MaskedImportance(), TruncatedImportance())), [1, 0, 0.2466]),
    ],
    ids=lambda part: type(part).__name__ if not isinstance(part, list) else "",
)
def test_weights_of_three_tokens(part: Mismatch, expected: list[float]) -> None:
    weights, _ = weigh(part, [DIFFERENCES])
    assert weights == [pytest.approx(expected, abs=1e-4)]


def test_a_sequence_is_a_trajectory_with_all_its_rows() -> None:
    rows, alone = [[0.0, 1.2], [-0.7]], [[0.0, 1.2, -0.7]]
    for part in (
        SequenceImportance(cap=2.0),
        GeometricRejection(high=1.1815),
        GeometricRejection(high=1.1813),
        DivergenceRejection(estimate="k3", limit=0.4388),
    ):
        together, _ = weigh(part, [*rows, [0.1]], trajectories=[0, 0, 1])
        whole, _ = weigh(part, [*alone, [0.1]])
        assert [*together[0], *together[1]] == pytest.approx(whole[0])
        assert together[2] == pytest.approx(whole[1])


def test_the_off_policy_mask_drops_bad_trajectories_that_the_policy_has_left() -> None:
    far = [[-0.9, -0.3]]  # the sampler found its tokens more likely: mean sampler - logp is 0.6
    assert weigh(OffPolicyMask(delta=0.5), far, advantage=-1.0)[0] == [[0, 0]]
    assert weigh(OffPolicyMask(delta=0.7), far, advantage=-1.0)[0] == [[1, 1]]
    assert weigh(OffPolicyMask(delta=0.5), far, advantage=1.0)[0] == [[1, 1]]
    assert weigh(OffPolicyMask(delta=0.5), [[0.9, 0.3]], advantage=-1.0)[0] == [[1, 1]]


def test_metrics_count_what_was_capped_or_left_out() -> None:
    rows = [DIFFERENCES, [0.0]]
    assert weigh(TruncatedImportance(), rows)[1]["mismatch/capped"] == Sum(1.0, 4.0)
    assert weigh(MaskedImportance(), rows)[1]["mismatch/rejected"] == Sum(1.0, 4.0)
    assert weigh(SequenceImportance(cap=1.5), rows)[1]["mismatch/rejected"] == Sum(3.0, 4.0)
    assert weigh(GeometricRejection(), rows)[1]["mismatch/rejected"] == Sum(3.0, 4.0)


def test_drift_metrics_of_three_tokens() -> None:
    old = torch.tensor([[*DIFFERENCES, 5.0]], dtype=torch.float64)
    mask = torch.tensor([[True, True, True, False]])
    zeros = torch.zeros_like(old)
    found = drift_metrics(old - math.log(1.2), old, zeros, old, mask)
    means = {key: value.mean for key, value in found.items()}
    assert means == pytest.approx(
        {
            "mismatch/gap": 1.9 / 3,
            "mismatch/ratio": (1 + 3.3201 + 0.4966) / 3,
            "mismatch/k1": -0.5 / 3,
            "mismatch/k3": 0.4389,
            "drift/old_k1": 0.18232,
            "drift/old_k3": 0.01565,
            "drift/ref_k1": -0.18232,
            "drift/ref_k3": 0.01768,
        },
        abs=1e-4,
    )


def test_the_effective_sample_size_is_one_for_equal_weights_and_a_share_otherwise() -> None:
    mask = torch.tensor([[True, True, True, True, False]])
    for weights, share in (
        ([2.0, 2.0, 2.0, 2.0, 9.0], 1.0),
        ([1.0, 1.0, 0.0, 0.0, 9.0], 0.5),
        ([3.0, 1.0, 0.0, 0.0, 9.0], 16 / 40),
        ([0.0, 0.0, 0.0, 0.0, 9.0], 0.0),
    ):
        found = weight_metrics(torch.tensor([weights]), mask)["mismatch/ess"]
        assert found.mean == pytest.approx(share)
        assert found.weight == 4.0


def test_the_effective_sample_size_of_parts_adds_up_to_that_of_the_whole() -> None:
    weights, mask = torch.tensor([[3.0, 1.0, 2.0, 2.0]]), torch.ones(1, 4, dtype=torch.bool)
    whole = weight_metrics(weights, mask)
    parts = [weight_metrics(weights[:, k : k + 2], mask[:, :2]) for k in (0, 2)]
    assert merge_metrics(parts) == whole
    assert whole["mismatch/ess"].mean == pytest.approx(64 / (4 * 18))


@given(st.lists(st.floats(-90, 90), min_size=1), st.floats(0.5, 5))
def test_truncated_weights_lie_between_zero_and_the_cap(
    differences: list[float], cap: float
) -> None:
    ((weights,), _) = weigh(TruncatedImportance(cap=cap), [differences])
    assert min(weights) > 0
    assert max(weights) <= cap * (1 + 1e-6)


@given(st.lists(st.lists(st.floats(-3, 3), min_size=1, max_size=4), min_size=1, max_size=3))
def test_normalised_weights_have_mean_one(rows: list[list[float]]) -> None:
    weights, _ = weigh(Normalised(), rows)
    flat = [w for row in weights for w in row]
    assert math.fsum(flat) / len(flat) == pytest.approx(1.0)


def test_left_out_tokens_leave_the_numerator_and_stay_in_the_counts() -> None:
    mask = torch.ones(1, 4, dtype=torch.bool)
    old = torch.tensor([[0.0, 1.2, -0.7, 0.0]], dtype=torch.float64)
    step = batch(mask, torch.full_like(old, -1.0), old_BT=old, sampler_BT=torch.zeros_like(old))
    objective = Objective(loss=PpoClip(), aggregate=TokenMean(), mismatch=MaskedImportance())
    loss, _ = objective(step, scores(old))
    assert float(loss) == pytest.approx((1 + 0 + math.exp(-0.7) + 1) / 4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MaskedImportance(floor=2.0), "floor: must be below cap=2.0"),
        (lambda: SequenceImportance(floor=3.0), "floor: must be below cap=3.0"),
        (lambda: Product(parts=()), "parts: expected one correction or more"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(make: object, message: str) -> None:
    assert callable(make)
    with pytest.raises(ConfigError, match=message):
        make()
