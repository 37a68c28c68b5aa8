"""Rewards shared out by entropy, against the formula written out."""

from collections.abc import Sequence
from statistics import fmean, stdev

import pytest
import torch

from agentrl.algo.advantages.gtpo_entropy import EntropyWeighted, quantile_of
from agentrl.core.types import Group, Level, Scored
from support.credit import TASK, turned


def of(
    estimator: EntropyWeighted, rewards: Sequence[float], entropies: Sequence[Sequence[float]]
) -> list[list[float]]:
    siblings = tuple(turned([len(h)], r) for r, h in zip(rewards, entropies, strict=True))
    out = estimator(
        Scored(groups=(Group(task=TASK, trajectories=siblings),), entropies=[entropies])
    )
    assert out.level is Level.TOKEN
    return [[*value] for value in out.values[0] if not isinstance(value, float | None)]


def test_successes_share_by_entropy_among_those_that_go_on() -> None:
    entropies = [[1.0, 0.5, 2.0], [3.0, 0.5], [9.0, 9.0]]
    got = of(EntropyWeighted(eps=0.0, quantile=1.0), [1.0, 1.0, 0.0], entropies)
    # Two successes at the first two tokens, one at the third; d H / sum H is then 1 by itself.
    raw = [
        [0.5 + 0.5 * 2 * 1 / 4, 0.5 + 0.5 * 2 * 0.5 / 1, 0.5 + 0.5 * 1],
        [0.5 + 0.5 * 2 * 3 / 4, 1.0],
        [0.0, 0.0],
    ]
    flat = [r for R in raw for r in R]
    expected = [[(r - fmean(flat)) / stdev(flat) for r in R] for R in raw]
    assert got == [pytest.approx(row) for row in expected]


def test_entropies_are_clipped_at_their_quantile() -> None:
    far = of(EntropyWeighted(quantile=0.5), [1.0, 1.0, 0.0], [[0.5], [99.0], [0.5]])
    assert far[0] == pytest.approx(far[1])


def test_where_nothing_is_uncertain_the_reward_is_shared_evenly() -> None:
    got = of(EntropyWeighted(eps=0.0), [1.0, 0.0], [[0.0, 0.0], [0.0, 0.0]])
    assert got[0] == pytest.approx([0.8660, 0.8660], abs=1e-4)


def test_a_group_of_equal_rewards_gives_nothing() -> None:
    assert of(EntropyWeighted(), [0.0, 0.0], [[1.0], [2.0]]) == [[0.0], [0.0]]


@pytest.mark.parametrize("count", [1, 2, 3, 10, 101])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.95, 1.0])
def test_a_quantile_lies_where_torch_s_does(count: int, share: float) -> None:
    values = torch.rand(count, generator=torch.Generator().manual_seed(count)).double()
    assert quantile_of(values, share) == pytest.approx(float(values.quantile(share)), abs=1e-12)
