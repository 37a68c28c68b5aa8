"""Direct preference optimisation, of the best of a group against its worst."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Gt
from torch.nn.functional import logsigmoid

from agentrl.algo.pairs import best_and_worst, group_mean, pair_metrics
from agentrl.core.registry import register
from agentrl.core.tensors import Siblings
from agentrl.core.types import Sum


@register("loss", "dpo")
@dataclass(frozen=True, kw_only=True)
class DirectPreference:
    """`-log sigmoid(beta (m_w - m_l))`, `m = log pi(y) - log ref(y)` over the whole trajectory, of
    the highest reward of a group against the lowest (DPO, Rafailov et al. 2023, arXiv 2305.18290,
    eq. 7; online as in Guo et al. 2024, arXiv 2402.04792).

    Ties for the highest or the lowest share the pair evenly; a group of equal rewards has none.
    Offline is the same loss on recorded groups (`rollout.replay`).
    """

    whole_groups: ClassVar[bool] = True
    beta: Annotated[float, Gt(0)] = 0.1
    """How far a margin has to go before it is enough: less lets the policy go further (above 0)."""

    def __call__(self, siblings: Siblings) -> tuple[torch.Tensor, Mapping[str, Sum]]:
        """`[N]`: the loss of the trajectory's group."""
        margins_N = siblings.margins_N
        pairs_NN = best_and_worst(siblings)
        losses_NN = -logsigmoid(self.beta * (margins_N[:, None] - margins_N[None, :]))
        found = pair_metrics(pairs_NN, margins_N)
        return group_mean(pairs_NN, losses_NN, siblings.group_N), found
