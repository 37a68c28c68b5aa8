"""`agentrl compare A B`: two checkpoints on the same tasks, and whether the difference is one.

Both play the same tasks with the same seeds, so differences are taken within a task: what makes a
task hard is the same for both.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from agentrl.core.errors import DataError
from agentrl.evaluate.suite import OF_WEIGHTS, Row


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Success of B less that of A on one entry in one seat."""

    entry: str
    seat: str
    tasks: int
    a: float
    b: float
    low: float
    high: float
    """95 % percentile bootstrap over tasks."""
    p: float
    """Two-sided: exact McNemar for one episode a task, else sign flips of the tasks' means."""

    def markdown(self) -> str:
        """A line of the table."""
        return (
            f"| {self.entry} | {self.seat} | {self.tasks} | {self.a:.3f} | {self.b:.3f} | "
            f"{self.b - self.a:+.3f} | {self.low:+.3f} to {self.high:+.3f} | {self.p:.4f} |"
        )


HEADER = (
    "| entry | seat | tasks | A | B | B - A | 95 % interval | p |\n"
    "| --- | --- | --- | --- | --- | --- | --- | --- |"
)


def compare(rows_a: Sequence[Row], rows_b: Sequence[Row], *, seed: int = 0) -> list[Difference]:
    """One difference for each seat that both have; floors and ceilings are no policy's.

    Raises:
        DataError: they did not play the same tasks.
    """
    others = {(row.entry, row.seat): row for row in rows_b}
    found = []
    for row in rows_a:
        other = others.get((row.entry, row.seat))
        if other is not None and row.seat in OF_WEIGHTS:
            found.append(_difference(row, other, seed))
    return found


def _difference(a: Row, b: Row, seed: int) -> Difference:
    of_a, of_b = _by_task(a), _by_task(b)
    tasks = sorted(of_a.keys() & of_b.keys())
    if not tasks:
        raise DataError(f"{a.entry}: the two have no task in common that neither failed")
    means_a = [math.fsum(of_a[task]) / len(of_a[task]) for task in tasks]
    means_b = [math.fsum(of_b[task]) / len(of_b[task]) for task in tasks]
    gaps = [y - x for x, y in zip(means_a, means_b, strict=True)]
    low, high = bootstrap(gaps, seed)
    is_single = all(len(of_a[task]) == len(of_b[task]) == 1 for task in tasks)
    return Difference(
        entry=a.entry,
        seat=a.seat,
        tasks=len(tasks),
        a=math.fsum(means_a) / len(tasks),
        b=math.fsum(means_b) / len(tasks),
        low=low,
        high=high,
        p=mcnemar(gaps) if is_single else sign_flips(gaps, seed),
    )


def _by_task(row: Row) -> dict[str, list[float]]:
    found: dict[str, list[float]] = defaultdict(list)
    for episode in row.counted:
        found[episode.task].append(float(bool(episode.success)))
    return found


def mcnemar(gaps: Sequence[float]) -> float:
    """Exact two-sided p of McNemar's test (1947): among the tasks that only one of the two solved,
    each is as likely to be either's."""
    better, worse = sum(gap > 0 for gap in gaps), sum(gap < 0 for gap in gaps)
    n = better + worse
    tail = sum(math.comb(n, k) for k in range(min(better, worse) + 1))
    return min(1.0, 2 * float(tail) / 2.0**n)


def sign_flips(gaps: Sequence[float], seed: int, resamples: int = 10_000) -> float:
    """Two-sided p of the mean gap under random signs (Fisher's randomisation test for pairs)."""
    rng, seen = Random(seed), abs(math.fsum(gaps))
    moved = [gap for gap in gaps if gap]
    hits = sum(
        abs(math.fsum(gap if rng.random() < 0.5 else -gap for gap in moved)) >= seen - 1e-12
        for _ in range(resamples)
    )
    return (hits + 1) / (resamples + 1)


def bootstrap(gaps: Sequence[float], seed: int, resamples: int = 2_000) -> tuple[float, float]:
    """95 % percentile interval of the mean gap over resampled tasks (Efron 1979)."""
    rng, n = Random(seed), len(gaps)
    means = sorted(math.fsum(rng.choices(gaps, k=n)) / n for _ in range(resamples))
    return means[int(0.025 * len(means))], means[int(0.975 * len(means))]
