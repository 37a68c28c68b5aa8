"""What the parts of a reward did in a step: their means, and whether two of them are at odds."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from statistics import StatisticsError, correlation

from agentrl.core.types import Sum, Trajectory


def part_metrics(episodes: Sequence[Trajectory]) -> dict[str, Sum]:
    """`reward/NAME` for each part of a score that has several, before its weight, and
    `reward/parts_correlation`: the lowest between two of them over the episodes that have both."""
    parts = [t.score.parts for t in episodes if t.score is not None and len(t.score.parts) > 1]
    names = sorted({name for one in parts for name in one})
    columns = {name: [one[name] for one in parts if name in one] for name in names}
    found = {f"reward/{name}": Sum(sum(c), float(len(c))) for name, c in columns.items()}
    lowest = [
        value
        for a, b in combinations(names, 2)
        if (value := _correlation([(one[a], one[b]) for one in parts if a in one and b in one]))
        is not None
    ]
    return found | ({"reward/parts_correlation": Sum(min(lowest))} if lowest else {})


def _correlation(pairs: Sequence[tuple[float, float]]) -> float | None:
    """Pearson's; None where one of the two does not vary."""
    try:
        return correlation([a for a, _ in pairs], [b for _, b in pairs])
    except StatisticsError:
        return None
