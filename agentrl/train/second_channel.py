"""The second channel in a step: bonuses for its groups, and their advantages beside the task's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import fsum
from typing import Literal

from agentrl.algo.second_channel import bonus_advantages, paid, seen
from agentrl.algo.spread import TokenAdvantages, spread
from agentrl.core.config import Config
from agentrl.core.errors import DataError
from agentrl.core.exploring import Tells
from agentrl.core.protocols import Bonus
from agentrl.core.types import AdvantageOut, Group, Level, Row, Sum


@dataclass(frozen=True, kw_only=True)
class Second:
    """What the second channel adds to a step."""

    coef: float = 0.0
    """The coefficient; 0 adds nothing."""
    metrics: dict[str, Sum] = field(default_factory=dict)

    def added(
        self,
        credit: Sequence[TokenAdvantages],
        rows: Sequence[Row],
        groups: Sequence[Group],
        shared: Literal["once", "each"],
    ) -> list[TokenAdvantages]:
        """`A_task + c A_bonus` of each token that the task's credit trains."""
        if not self.coef:
            return list(credit)
        out = AdvantageOut(
            values=tuple(tuple(group.bonus or ()) for group in groups), level=Level.TURN
        )
        second = spread(rows, groups, out, shared=shared)
        return [
            TokenAdvantages(
                tuple(
                    a + self.coef * b if trained else a
                    for a, b, trained in zip(task.values, bonus.values, task.mask, strict=True)
                ),
                task.mask,
            )
            for task, bonus in zip(credit, second, strict=True)
        ]


def with_bonuses(
    groups: Sequence[Group], config: Config, done: float
) -> tuple[list[Group], Second]:
    """The step's groups with the second channel's advantages, and what it adds.

    All ranks call it with the groups of all, rate them alike and remember the same.

    Args:
        done: the share of training that is behind (0..1).

    Raises:
        DataError: the bonus does not rate every turn with a finite number of at least 0.
    """
    channel = config.channel
    if config.bonus is None or not channel.coef:
        return list(groups), Second()
    ratings = rated(config.bonus, groups)
    config.bonus.observe(groups)
    kept = [g for g, group in enumerate(groups) if len(group.scored) >= 2]
    pays = {g: paid([ratings[g][i] for i in groups[g].scored], channel) for g in kept}
    sums = {g: [fsum(turns) for turns in pays[g]] for g in kept}
    channel.observe(seen([groups[g] for g in kept], [sums[g] for g in kept]))
    coef = channel.coefficient(done)
    found = list(groups)
    for g in kept if coef else ():
        own = iter(bonus_advantages(pays[g], channel))
        by_turn = [
            tuple(next(own)) if t.is_scored else (0.0,) * len(t.turns)
            for t in groups[g].trajectories
        ]
        found[g] = replace(groups[g], bonus=tuple(by_turn))
    raw = [fsum(ratings[g][i]) for g in kept for i in groups[g].scored]
    flat = [g for g in kept if len(set(groups[g].values)) <= 1]
    metrics = {
        "bonus/mean": Sum(fsum(raw), float(len(raw))),
        "bonus/paid": Sum(fsum(map(fsum, sums.values())), float(len(raw))),
        "bonus/coef": Sum(coef),
        "bonus/need": Sum(channel.need),
        "bonus/help": Sum(channel.help),
        "groups/frac_dead": Sum(float(sum(found[g].is_dead for g in kept)), float(len(kept))),
        "groups/dead_in_task_only": Sum(float(sum(not found[g].is_dead for g in flat))),
    }
    if isinstance(config.bonus, Tells):
        metrics |= config.bonus.metrics()
    return found, Second(coef=coef, metrics=metrics)


def rated(bonus: Bonus, groups: Sequence[Group]) -> list[list[list[float]]]:
    """What the bonus says, `[group][trajectory][turn]`. Raises `DataError` for nonsense."""
    ratings = bonus.rate(groups)
    expected = [[len(t.turns) for t in group.trajectories] for group in groups]
    if [[len(turns) for turns in group] for group in ratings] != expected:
        raise DataError(
            f"bonus: {type(bonus).__name__} must rate every turn of every trajectory once; it "
            "answered lists of other lengths"
        )
    for group in ratings:
        for rating in (rating for turns in group for rating in turns):
            if not (math.isfinite(rating) and rating >= 0):
                raise DataError(
                    f"bonus: {type(bonus).__name__} must answer finite numbers of at least 0, and "
                    f"answered {rating!r}"
                )
    return ratings
