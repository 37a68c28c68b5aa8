"""Length normalisation: worked numbers, and what padding and masked rows must not change."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from agentrl.algo.aggregate import Constant, SequenceMeanTokenMean, TokenMean
from agentrl.core.protocols import Aggregate
from support.credit import batch

EVERY = pytest.mark.parametrize(
    "aggregate", [TokenMean(), SequenceMeanTokenMean(), Constant(length=4)]
)


def total(aggregate: Aggregate, losses: list[list[float]], width: int = 0) -> float:
    """The loss of rows of token losses, padded to at least `width`."""
    width = max(width, *(len(row) for row in losses))
    rows = [row + [0.0] * (width - len(row)) for row in losses]
    loss_BT = torch.tensor(rows, dtype=torch.float64)
    mask_BT = torch.tensor([[t < len(row) for t in range(width)] for row in losses])
    step = batch(mask_BT, loss_BT)
    weight_B = aggregate(step.lengths_B, step.n_tokens, step.n_trajectories)
    return float((loss_BT * mask_BT * weight_B[:, None]).sum())


@pytest.mark.parametrize(
    ("aggregate", "expected"),
    [
        (TokenMean(), 10 / 6),
        (SequenceMeanTokenMean(), 1.5),
        (Constant(length=4), 1.25),
    ],
)
def test_two_rows_of_length_two_and_four(aggregate: Aggregate, expected: float) -> None:
    assert total(aggregate, [[1, 1], [2, 2, 2, 2]]) == pytest.approx(expected, abs=1e-9)


@EVERY
@given(
    st.lists(st.lists(st.floats(-5, 5), min_size=1, max_size=5), min_size=1, max_size=4),
    st.integers(0, 9),
)
def test_padding_masked_rows_and_order_change_nothing(
    aggregate: Aggregate, losses: list[list[float]], width: int
) -> None:
    plain = total(aggregate, losses)
    assert total(aggregate, losses, width) == pytest.approx(plain, abs=1e-9)
    assert total(aggregate, losses[::-1]) == pytest.approx(plain, abs=1e-9)
    assert total(aggregate, [*losses, []], width) == pytest.approx(plain, abs=1e-9)


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=8), st.integers(1, 4))
def test_copying_the_step_changes_no_mean(losses: list[float], copies: int) -> None:
    for aggregate in (TokenMean(), SequenceMeanTokenMean(), Constant()):
        once, many = total(aggregate, [losses]), total(aggregate, [losses] * copies)
        assert many == pytest.approx(once, abs=1e-9)
