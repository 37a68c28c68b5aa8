"""Turns of siblings by the state in which they began, and values normalised among them.

Axes of ragged lists: `G` siblings, `K` turns.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from typing import Literal

from agentrl.algo.returns import mean_and_variance
from agentrl.core.graph import fuzzy
from agentrl.core.types import AdvantageOut, Group, Level, Scored, Sum

Norm = Literal["mean", "mean_std"]
"""Whether centred values are divided by their deviation."""
Place = tuple[int, int]
"""A turn: (trajectory, turn)."""
EPS = 1e-6
"""Added to standard deviations under `mean_std`."""


def states_of(group: Group, similarity: float = 1.0) -> dict[int, list[Hashable]]:
    """Scored trajectory -> `[K]` the state in which each turn began, by the env's `state_key()`.

    A turn without a key began in a state of its own. With a `similarity` below 1 keys are texts,
    and those that nearly agree are one state (difflib's ratio).
    """
    keys = {i: [turn.state_key for turn in group.trajectories[i].turns] for i in group.scored}
    alike: dict[str, str] = {}
    if similarity < 1.0:
        alike = fuzzy((key for own in keys.values() for key in own if key is not None), similarity)
    return {
        i: [(i, k) if key is None else alike.get(key, key) for k, key in enumerate(own)]
        for i, own in keys.items()
    }


Estimate = Callable[[Group, dict[int, list[Hashable]]], tuple[list[float] | None, ...]]
"""A group and its states -> the advantages of each trajectory's turns, None for one left out."""


def by_state(scored: Scored, similarity: float, estimate: Estimate) -> AdvantageOut:
    """What an estimator that compares siblings by state answers for a step, at turn level.
    `credit/same_state` is how many turns began in a turn's state on average."""
    states = [states_of(group, similarity) for group in scored.groups]
    return AdvantageOut(
        values=tuple(
            estimate(group, own) for group, own in zip(scored.groups, states, strict=True)
        ),
        level=Level.TURN,
        metrics=shared_states([places_of(own) for own in states]),
    )


def places_of(states: dict[int, list[Hashable]]) -> dict[Hashable, list[Place]]:
    """State -> the turns that began in it, in order."""
    found: dict[Hashable, list[Place]] = {}
    for i, own in states.items():
        for k, state in enumerate(own):
            found.setdefault(state, []).append((i, k))
    return found


def normalised(value: float, pool: Sequence[float], norm: Norm) -> float:
    """`value - mean` of the pool it is in, over its deviation under `mean_std`; 0 where all of the
    pool is equal."""
    if len(set(pool)) <= 1:
        return 0.0
    mean, variance = mean_and_variance(pool)
    centred = value - mean
    return centred if norm == "mean" else centred / (math.sqrt(variance) + EPS)


def among(
    values: dict[int, list[float]], places: Sequence[Place], norm: Norm
) -> list[tuple[Place, float]]:
    """Each turn's value, normalised among those of the given turns."""
    pool = [values[i][k] for i, k in places]
    if len(set(pool)) <= 1:
        return [(place, 0.0) for place in places]
    mean, variance = mean_and_variance(pool)
    divisor = 1.0 if norm == "mean" else math.sqrt(variance) + EPS
    return [(place, (x - mean) / divisor) for place, x in zip(places, pool, strict=True)]


def episode_part(group: Group, norm: Norm) -> dict[int, float]:
    """Scored trajectory -> its score, normalised among its siblings'."""
    values = group.values
    return {i: normalised(v, values, norm) for i, v in zip(group.scored, values, strict=True)}


def shared_states(found: Sequence[dict[Hashable, list[Place]]]) -> dict[str, Sum]:
    """`credit/same_state`: how many turns began in a turn's state on average (1: states that
    siblings share do not occur, and say nothing)."""
    sizes = [len(places) for group in found for places in group.values()]
    return {"credit/same_state": Sum(float(sum(n * n for n in sizes)), float(sum(sizes)))}
