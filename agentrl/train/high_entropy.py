"""Advantages meet their rows; where asked for, only on the tokens with the highest entropy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from agentrl.algo.entropy import entropy_threshold
from agentrl.algo.spread import TokenAdvantages
from agentrl.core.errors import DataError
from agentrl.core.protocols import Entropy, Share
from agentrl.core.types import Sum
from agentrl.train.prepare import TrainRow


def credited(
    rows: Sequence[TrainRow],
    credit: Sequence[TokenAdvantages],
    entropy: Entropy | None,
    share: Share,
) -> tuple[list[TrainRow], dict[str, Sum]]:
    """This rank's rows with their advantages, masked if `entropy.top` says so, and metrics."""
    items = [replace(row, advantages=a) for row, a in zip(rows, credit, strict=True)]
    if entropy is None or entropy.top == 1:
        return items, {}
    return high_entropy_only(items, entropy.top, share)


def high_entropy_only(
    rows: Sequence[TrainRow], top: float, share: Share
) -> tuple[list[TrainRow], dict[str, Sum]]:
    """Rows whose advantages are 0 but on the share `top` of the step's trained tokens (of all
    ranks) with the highest entropy (Wang et al. 2025, arXiv 2506.01939).

    Without an advantage a token has no surrogate loss. It stays in the counts, and KL and entropy
    bonus still act on it.

    Raises:
        DataError: the rows have no entropies.
    """
    own = [
        entropy
        for row in rows
        for entropy, is_trained in zip(_entropies(row), row.advantages.mask, strict=True)
        if is_trained
    ]
    everyone = [entropy for part in share.exchange(own) for entropy in part]
    least = entropy_threshold(everyone, top)
    chosen = [replace(row, advantages=_where(row, least)) for row in rows]
    return chosen, {"loss/entropy_threshold": Sum(least)} if everyone else {}


def _entropies(row: TrainRow) -> tuple[float, ...]:
    if row.entropies is None:
        raise DataError("entropy.top: expected rows with entropies: call with_old before")
    return row.entropies


def _where(row: TrainRow, least: float) -> TokenAdvantages:
    pairs = zip(row.advantages.values, _entropies(row), strict=True)
    return TokenAdvantages(tuple(a if h >= least else 0.0 for a, h in pairs), row.advantages.mask)
