"""The step as estimators see it, with the KL taken from the reward before credit is given:
`R_i - beta * sum_t k(d_t)` with `d_t = sampler_logp_t - ref_logp_t` over the sampled tokens of a
trajectory, inherited ones included (RLOO, arXiv 2402.14740, eq. 2; REINFORCE++, arXiv 2501.03262).
The sampler's logprobs are those of the policy that acted. Turn scores lose their own turn's part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import fsum
from typing import Literal

import torch

from agentrl.core.errors import DataError
from agentrl.core.protocols import Kl, Share
from agentrl.core.types import Group, Score, Scored, Sum, Trajectory
from agentrl.train.prepare import TrainRow

Turns = list[list[float]]
"""One number for each sampled token of a trajectory, `[turn][token]`."""
Ragged = list[list[list[float]]]
"""The same of a step, `[group][trajectory][token]`."""
PerToken = Literal["ref_logprobs", "entropies", "values"]
FILLED_BY: dict[PerToken, str] = {
    "ref_logprobs": "with_reference",
    "entropies": "with_old",
    "values": "Critic.valued",
}


def scored_step(
    groups: Sequence[Group],
    rows: Sequence[TrainRow],
    *,
    kl: Kl | None,
    share: Share,
    needs: frozenset[str] = frozenset(),
) -> tuple[Scored, dict[str, Sum]]:
    """The step as an estimator sees it, and metrics: with the `ref_logprobs`, `entropies` and
    `values` it needs, and with scores less the KL where that is placed in the reward. The given
    groups stay as they are.

    Rows are those of this rank; the groups of other ranks get theirs by `share`.

    Raises:
        DataError: something is wanted that the rows do not have.
    """
    in_reward = kl is not None and kl.placement == "reward"
    reference, ref_logprobs = (
        _of_all(groups, rows, "ref_logprobs", share)
        if in_reward or "ref_logprobs" in needs
        else ({}, None)
    )
    _, entropies = _of_all(groups, rows, "entropies", share) if "entropies" in needs else ({}, None)
    _, values = _of_all(groups, rows, "values", share) if "values" in needs else ({}, None)
    found = Scored(
        groups=tuple(groups),
        ref_logprobs=ref_logprobs,
        entropies=entropies,
        values=values,
        end_values=_end_values(groups, rows, share) if "values" in needs else None,
    )
    if kl is None or not in_reward:
        return found, {}
    charged, sums = [], []
    for g, group in enumerate(groups):
        siblings = list(group.trajectories)
        for i in group.scored:
            turns = _penalties(siblings[i], reference.get((g, i), []), kl)
            siblings[i] = _less(siblings[i], turns)
            sums.append(fsum(turns) / kl.beta)
        charged.append(replace(group, trajectories=tuple(siblings)))
    metrics = {"reward/kl": Sum(fsum(sums), float(len(sums)))}
    return replace(found, groups=tuple(charged)), metrics


def _of_all(
    groups: Sequence[Group], rows: Sequence[TrainRow], name: PerToken, share: Share
) -> tuple[dict[tuple[int, int], Turns], Ragged]:
    """A number of each sampled token, of all ranks: by (group, trajectory) and turn, and flat."""
    parts = share.exchange(_by_turn(groups, rows, name))
    by_key = {key: turns for part in parts for key, turns in part.items()}
    flat = [
        [
            [value for turn in by_key.get((g, i), []) for value in turn]
            for i in range(len(group.trajectories))
        ]
        for g, group in enumerate(groups)
    ]
    return by_key, flat


def _by_turn(
    groups: Sequence[Group], rows: Sequence[TrainRow], name: PerToken
) -> dict[tuple[int, int], Turns]:
    found: dict[tuple[int, int], Turns] = {}
    for item in rows:
        numbers: tuple[float, ...] | None = getattr(item, name)
        if numbers is None:
            raise DataError(f"expected rows with {name}: call {FILLED_BY[name]} before")
        turns = groups[item.row.group].trajectories[item.row.trajectory].turns
        values = found.setdefault(item.key, [[] for _ in turns])
        for k, value in zip(item.row.turn_of, numbers, strict=True):
            if k >= 0:
                values[k].append(value)
    return found


def _end_values(
    groups: Sequence[Group], rows: Sequence[TrainRow], share: Share
) -> list[list[float]]:
    """`[group][trajectory]`: the value behind the last token of its last row, 0 without rows."""
    own = {
        item.key: item.value_after or 0.0 for item in rows
    }  # a later row takes an earlier's place
    by_key = {key: value for part in share.exchange(own) for key, value in part.items()}
    return [
        [by_key.get((g, i), 0.0) for i in range(len(group.trajectories))]
        for g, group in enumerate(groups)
    ]


def _penalties(trajectory: Trajectory, reference: Turns, kl: Kl) -> list[float]:
    """What each turn pays."""
    turns = []
    for turn, ref_A in zip(trajectory.turns, reference, strict=True):
        sampler = torch.tensor(turn.sampler_logprobs, dtype=torch.float64)
        estimate = kl(sampler, torch.tensor(ref_A, dtype=torch.float64), sampler)
        turns.append(float(estimate.sum()))
    return turns


def _less(trajectory: Trajectory, penalties: Sequence[float]) -> Trajectory:
    score = trajectory.score
    assert score is not None  # group.scored has it
    turns = score.turns
    return replace(
        trajectory,
        score=Score(
            value=score.value - fsum(penalties),
            turns=None
            if turns is None
            else tuple(r - p for r, p in zip(turns, penalties, strict=True)),
            parts={**score.parts, "kl": -fsum(penalties)},
        ),
    )
