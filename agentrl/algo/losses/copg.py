"""Contrastive policy gradient: every sibling is the others' baseline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Gt

from agentrl.algo.pairs import pair_metrics, siblings_of
from agentrl.core.registry import register
from agentrl.core.tensors import Siblings
from agentrl.core.types import Sum


@register("loss", "copg")
@dataclass(frozen=True, kw_only=True)
class ContrastivePolicyGradient:
    """`-[(R_i - R_j) - beta/2 (m_i - m_j)] (m_i - m_j)`, averaged over a group's ordered pairs,
    `m = log pi(y) - log ref(y)` over the whole trajectory (CoPG, Flet-Berliac et al. 2024, arXiv
    2406.19185).

    The gradient of a pair is `-(R'_i - R'_j) (grad log pi_i - grad log pi_j)`, `R' = R - beta m`: a
    policy gradient for any data, without importance weights, whose optimum is `ref exp(R / beta)`
    up to a factor. R is the trajectory's advantage: `grpo` with `scale=none` leaves rewards alone.
    """

    whole_groups: ClassVar[bool] = True
    beta: Annotated[float, Gt(0)] = 0.1
    """Weight of the divergence from the reference (above 0)."""

    def __call__(self, siblings: Siblings) -> tuple[torch.Tensor, Mapping[str, Sum]]:
        """`[N]`: the mean over the pairs that the trajectory is first in, 0 without siblings."""
        margins_N, rewards_N = siblings.margins_N, siblings.rewards_N
        gap_NN = margins_N[:, None] - margins_N[None, :]
        better_NN = (rewards_N[:, None] - rewards_N[None, :]).to(gap_NN.dtype)
        pairs_NN = siblings_of(siblings.group_N).to(gap_NN.dtype)
        losses_NN = -(better_NN - 0.5 * self.beta * gap_NN) * gap_NN
        losses_N = (pairs_NN * losses_NN).sum(1) / pairs_NN.sum(1).clamp(min=1.0)
        return losses_N, pair_metrics(pairs_NN * (better_NN > 0), margins_N)
