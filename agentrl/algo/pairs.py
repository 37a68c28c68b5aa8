"""Pairs of siblings, for losses that compare trajectories (`core.tensors.Siblings`).

Axes: `N` trajectories; `[N,N]` is the first of a pair by the second.
"""

from __future__ import annotations

import torch

from agentrl.core.tensors import Siblings
from agentrl.core.types import Sum


def siblings_of(group_N: torch.Tensor) -> torch.Tensor:
    """`[N,N]`: two different trajectories of one group."""
    is_same = group_N[:, None] == group_N[None, :]
    return is_same & ~torch.eye(len(group_N), dtype=torch.bool, device=group_N.device)


def best_and_worst(siblings: Siblings) -> torch.Tensor:
    """`[N,N]` weights of (chosen, rejected): each trajectory with the highest reward of its group
    against each with the lowest. A group's weights sum to 1; if all are equal, it has none."""
    rewards_N = siblings.rewards_N
    is_same = siblings.group_N[:, None] == siblings.group_N[None, :]
    above_NN = is_same & (rewards_N[:, None] > rewards_N[None, :])
    is_best, is_worst = ~above_NN.any(0), ~above_NN.any(1)
    pairs_NN = (above_NN & is_best[:, None] & is_worst[None, :]).to(siblings.margins_N.dtype)
    of_group_N = is_same.to(pairs_NN.dtype) @ pairs_NN.sum(1)
    return pairs_NN / of_group_N.clamp(min=1.0)[:, None]


def group_mean(
    pairs_NN: torch.Tensor, losses_NN: torch.Tensor, group_N: torch.Tensor
) -> torch.Tensor:
    """`[N]`: the weighted loss of the trajectory's group, the same for all siblings, so that the
    mean over trajectories is that over groups (of equal size)."""
    is_same = (group_N[:, None] == group_N[None, :]).to(losses_NN.dtype)
    return is_same @ (pairs_NN * losses_NN).sum(1)


def pair_metrics(pairs_NN: torch.Tensor, margins_N: torch.Tensor) -> dict[str, Sum]:
    """`pairs/accuracy`, how often the policy prefers the chosen one more than the reference does,
    and `pairs/margin`, by how many nats."""
    gap_NN = (margins_N[:, None] - margins_N[None, :]).detach()
    count = float(pairs_NN.sum())
    return {
        "pairs/accuracy": Sum(float((pairs_NN * (gap_NN > 0)).sum()), count),
        "pairs/margin": Sum(float((pairs_NN * gap_NN).sum()), count),
    }
