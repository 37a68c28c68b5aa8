"""The second channel's numbers: from what turns were paid to advantages beside the task's.

`A = A_task + c A_bonus`, with `A_bonus` centred over the siblings and divided by `max(std, s0)`,
`s0` in units of task reward. It is never divided by a std that `c` scales, so that annealing `c`
fades the channel also where no sibling has a reward. Axes: `G` siblings, `K` turns.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from math import fsum

from agentrl.algo.returns import returns_to_go
from agentrl.core.channel import Channel, Seen
from agentrl.core.types import Group

Paid = list[list[float]]
"""`[G][K]`."""


def paid(ratings_GK: Sequence[Sequence[float]], channel: Channel) -> Paid:
    """Bonuses in task reward: times `scale`, and each episode's shrunk to a sum of `cap`."""
    found = []
    for ratings_K in ratings_GK:
        total = fsum(ratings_K) * channel.scale
        factor = channel.scale if total <= channel.cap else channel.cap / fsum(ratings_K)
        found.append([rating * factor for rating in ratings_K])
    return found


def bonus_advantages(paid_GK: Sequence[Sequence[float]], channel: Channel) -> Paid:
    """`A_bonus` of each turn of each sibling, before the coefficient.

    Level `trajectory`: the episode's sum, centred, for each of its turns. Level `turn`: the turn's
    discounted return, centred over the siblings that have such a turn; one divisor for the group.
    """
    if channel.level == "trajectory":
        sums = centred([fsum(turns) for turns in paid_GK])
        divisor = max(_std(sums), channel.s0)
        return [[a / divisor] * len(turns) for a, turns in zip(sums, paid_GK, strict=True)]
    returns = [returns_to_go(turns, channel.gamma) for turns in paid_GK]
    for k in range(max(map(len, returns), default=0)):
        there = [own for own in returns if k < len(own)]
        for own, value in zip(there, centred([own[k] for own in there]), strict=True):
            own[k] = value
    divisor = max(_std([value for own in returns for value in own]), channel.s0)
    return [[value / divisor for value in own] for own in returns]


def centred(values: Sequence[float]) -> list[float]:
    """Less their mean; equal values give exact zeros."""
    if len(set(values)) <= 1:
        return [0.0] * len(values)
    mean = fsum(values) / len(values)
    return [value - mean for value in values]


def _std(values: Sequence[float]) -> float:
    """Of centred values, about 0."""
    return math.sqrt(fsum(v * v for v in values) / len(values)) if values else 0.0


def seen(groups: Sequence[Group], sums: Sequence[Sequence[float]]) -> Seen:
    """What the groups tell of the channel's use.

    Args:
        groups: those with at least two scored trajectories.
        sums: what each scored trajectory of each group was paid.
    """
    hopeless, compared, products, scores, bonuses = 0, 0, 0.0, 0.0, 0.0
    for group, sums_G in zip(groups, sums, strict=True):
        values = group.values
        if len(set(values)) <= 1:
            hopeless += not any(group.trajectories[i].success for i in group.scored)
        elif len(set(sums_G)) > 1:
            r, s = centred(values), centred(sums_G)
            compared += 1
            products += fsum(a * b for a, b in zip(r, s, strict=True))
            scores += fsum(a * a for a in r)
            bonuses += fsum(b * b for b in s)
    share = hopeless / len(groups) if groups else 0.0
    return Seen(share, compared, products, scores, bonuses)
