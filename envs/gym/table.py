"""The exact expert of an env that shows its transition table (`env.unwrapped.P`).

Backward induction over the steps that are left (the limit of steps is part of the problem): the
best action maximises the chance of success, then the expected return, then speed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Rule = Literal["last_reward", "return", "terminated"]
Outcome = tuple[float, int, float, bool]
"""Probability, next state, reward, whether the episode ends."""
Table = Mapping[int, Mapping[int, Sequence[Outcome]]]
Floats = NDArray[np.float64]

TIE = 1e-9
"""Values that differ by less are equal."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The best action for each number of steps left, and what it is worth.

    `action[h, s]`, `success[h, s]` and `value[h, s]` (expected return) hold for `h` steps left,
    `h` from 0 to the horizon.
    """

    action: NDArray[np.int16]
    success: Floats
    value: Floats

    def best(self, state: int, steps_left: int) -> int:
        """The action to take."""
        return int(self.action[min(steps_left, len(self.action) - 1), state])


def solve(table: Table, *, horizon: int, rule: Rule, threshold: float) -> Plan:
    """Backward induction: `Q_h(s,a) = sum_o p_o (gain_o + (1 - end_o) V_{h-1}(s'_o))`, for three
    gains in turn: success, reward, and -1 for each step.

    Success is a transition that ends the episode (`terminated`), with a reward above `threshold`
    under the rule `last_reward`; under `return` it is no matter of single steps, so the return
    alone is maximised.
    """
    states, actions = len(table), len(table[0])
    width = max(len(outcomes) for row in table.values() for outcomes in row.values())
    chance = np.zeros((states, actions, width))
    target = np.zeros((states, actions, width), dtype=np.intp)
    reward = np.zeros((states, actions, width))
    ends = np.ones((states, actions, width), dtype=bool)
    for s, row in table.items():
        for a, outcomes in row.items():
            for o, outcome in enumerate(outcomes):
                chance[s, a, o], target[s, a, o], reward[s, a, o], ends[s, a, o] = outcome
    good = {"terminated": ends, "last_reward": ends & (reward > threshold)}.get(rule)
    gains = [np.zeros_like(reward) if good is None else good.astype(float), reward]
    gains.append(-np.ones_like(reward))
    goes_on = chance * ~ends
    sure = [(chance * gain).sum(axis=2) for gain in gains]
    values = [np.zeros((horizon + 1, states)) for _ in gains]
    best = np.zeros((horizon + 1, states), dtype=np.int16)
    everywhere = np.arange(states)
    for h in range(1, horizon + 1):
        qs = [
            q + (goes_on * v[h - 1][target]).sum(axis=2) for q, v in zip(sure, values, strict=True)
        ]
        best[h] = _first_of_best(qs)
        for q, v in zip(qs, values, strict=True):
            v[h] = q[everywhere, best[h]]
    return Plan(action=best, success=values[0], value=values[1])


def _first_of_best(qs: Sequence[Floats]) -> NDArray[np.intp]:
    """For each state the first action that is best by the first value, then the second, ..."""
    allowed = np.ones(qs[0].shape, dtype=bool)
    for q in qs:
        held = np.where(allowed, q, -np.inf)
        allowed &= held >= held.max(axis=1, keepdims=True) - TIE
    return np.asarray(allowed.argmax(axis=1))
