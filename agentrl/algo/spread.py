"""From trajectory, turn or token values to the sampled tokens of rows: the only place that maps.

A turn's value goes to each of its sampled tokens, in whichever row they lie. Tokens that several
leaves of a branched rollout share are trained once, in the row of the first scored leaf, with the
unweighted mean of the sharers' values (`shared="once"`), or in every row (`shared="each"`, ARPO's
soft form, arXiv 2507.19849).
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Literal, NamedTuple

from agentrl.core.errors import DataError
from agentrl.core.types import AdvantageOut, Group, Level, Row


class TokenAdvantages(NamedTuple):
    """A row's advantages `[T]` (0 off the mask) and whether each token is trained."""

    values: tuple[float, ...]
    mask: tuple[bool, ...]


def spread(
    rows: Sequence[Row],
    groups: Sequence[Group],
    out: AdvantageOut,
    *,
    shared: Literal["once", "each"] = "once",
) -> list[TokenAdvantages]:
    """One `TokenAdvantages` per row, in order.

    Raises:
        DataError: the estimator gave a scored trajectory no value, or lists of the wrong length.
    """
    maps = [_GroupMap(group, out, g, shared) for g, group in enumerate(groups)]
    return [maps[row.group].row(row) for row in rows]


class _GroupMap:
    """Values and masks of one group, `[trajectory][turn][token]`."""

    def __init__(self, group: Group, out: AdvantageOut, index: int, shared: str) -> None:
        self.group = group
        self.values = {i: _turn_tokens(group, out, index, i) for i in group.scored}
        keep = out.keep[index] if out.keep is not None else None
        self.keep = {i: keep[i] if keep is not None else None for i in group.scored}
        self.shared = shared
        self.leaves: dict[tuple[int, int], list[int]] = {}
        for i in group.scored:
            for k in range(len(group.trajectories[i].turns)):
                self.leaves.setdefault(group.owner(i, k), []).append(i)

    def row(self, row: Row) -> TokenAdvantages:
        values = [0.0] * len(row.ids)
        mask = [False] * len(row.ids)
        i = row.trajectory
        turns = self.group.trajectories[i].turns
        position = dict.fromkeys(row.turn_of, 0)
        before = [0]
        for turn in turns:
            before.append(before[-1] + len(turn.action_ids))
        for t, k in enumerate(row.turn_of):
            if k < 0:
                continue
            a = position[k]
            position[k] += 1
            leaves = self.leaves[self.group.owner(i, k)] if self.shared == "once" else [i]
            keep = self.keep[i]
            mask[t] = leaves[0] == i and (keep is None or keep[before[k] + a])
            if mask[t]:
                values[t] = fmean(self.values[leaf][k][a] for leaf in leaves)
        return TokenAdvantages(tuple(values), tuple(mask))


def _turn_tokens(
    group: Group, out: AdvantageOut, index: int, trajectory: int
) -> list[Sequence[float]]:
    """The values of one trajectory as `[turn][token]`."""
    value = out.values[index][trajectory]
    turns = group.trajectories[trajectory].turns
    counts = [len(turn.action_ids) for turn in turns]
    where = f"trajectory {trajectory} of group {index}"
    if value is None:
        raise DataError(f"the estimator gave {where} no advantage although it is scored")
    if out.level is Level.TRAJECTORY:
        if not isinstance(value, float | int):
            raise DataError(f"expected one number for {where} at trajectory level, got {value!r}")
        return [[float(value)] * count for count in counts]
    if isinstance(value, float | int):
        raise DataError(f"expected a list for {where} at {out.level} level, got {value!r}")
    expected = len(turns) if out.level is Level.TURN else sum(counts)
    if len(value) != expected:
        raise DataError(f"expected {expected} {out.level} values for {where}, got {len(value)}")
    if out.level is Level.TURN:
        return [[float(v)] * count for v, count in zip(value, counts, strict=True)]
    rest = iter(value)
    return [[float(next(rest)) for _ in range(count)] for count in counts]
