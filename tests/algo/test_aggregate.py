"""Length normalisation: worked numbers, and what padding and masked rows must not change."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from agentrl.algo.aggregate import (
    Constant,
    LocalTokenMean,
    SequenceMeanTokenMean,
    SequenceMeanTokenSum,
    TokenMean,
)
from agentrl.core.protocols import Aggregate
from agentrl.core.tensors import Counts
from support.credit import batch

EVERY = pytest.mark.parametrize(
    "aggregate",
    [
        TokenMean(),
        LocalTokenMean(),
        SequenceMeanTokenMean(),
        SequenceMeanTokenSum(),
        Constant(length=4),
    ],
)


def total(aggregate: Aggregate, losses: list[list[float]], width: int = 0) -> float:
    """The loss of rows of token losses, padded to at least `width`."""
    width = max(width, *(len(row) for row in losses))
    rows = [row + [0.0] * (width - len(row)) for row in losses]
    loss_BT = torch.tensor(rows, dtype=torch.float64)
    mask_BT = torch.tensor([[t < len(row) for t in range(width)] for row in losses])
    step = batch(mask_BT, loss_BT)
    weight_B = aggregate(step.lengths_B, step.counts)
    return float((loss_BT * mask_BT * weight_B[:, None]).sum())


@pytest.mark.parametrize(
    ("aggregate", "expected"),
    [
        (TokenMean(), 10 / 6),
        (LocalTokenMean(), 10 / 6),
        (SequenceMeanTokenMean(), 1.5),
        (SequenceMeanTokenSum(), 5.0),
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
    for aggregate in (TokenMean(), SequenceMeanTokenMean(), SequenceMeanTokenSum(), Constant()):
        once, many = total(aggregate, [losses]), total(aggregate, [losses] * copies)
        assert many == pytest.approx(once, abs=1e-9)


def test_the_local_token_mean_is_the_mean_of_the_micro_batches_means() -> None:
    # Losses [1, 1] in one micro-batch and [2, 2, 2, 2] in the other: means 1 and 2, where the mean
    # over the tokens of both is 10 / 6.
    lengths = (2.0, 4.0)
    parts = [
        LocalTokenMean()(
            torch.tensor([n]), Counts(tokens=6, trajectories=2, local_tokens=int(n), batches=2)
        )
        for n in lengths
    ]
    assert float(parts[0] * 2 + parts[1] * 8) == pytest.approx(1.5)
    assert LocalTokenMean.depends_on_cut
