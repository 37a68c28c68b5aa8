"""Identity preference optimisation, of the best of a group against its worst."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Gt

from agentrl.algo.pairs import best_and_worst, group_mean, pair_metrics
from agentrl.core.registry import register
from agentrl.core.tensors import Siblings
from agentrl.core.types import Sum


@register("loss", "ipo")
@dataclass(frozen=True, kw_only=True)
class IdentityPreference:
    """`(m_w - m_l - 1 / (2 beta))^2`, `m = log pi(y) - log ref(y)`, of a group's highest reward
    against its lowest (IPO, Azar et al. 2023, arXiv 2310.12036, eq. 17, where beta is tau).

    It stops at a margin, where DPO goes on for ever. Pairs are those of `dpo`.
    """

    whole_groups: ClassVar[bool] = True
    beta: Annotated[float, Gt(0)] = 0.1
    """The margin to reach is 1 / (2 beta) nats (above 0)."""
    per_token: bool = True
    """Divide each `m` by its trajectory's trained tokens, as the released code does and TRL's; the
    paper's equation has sums."""

    def __call__(self, siblings: Siblings) -> tuple[torch.Tensor, Mapping[str, Sum]]:
        """`[N]`: the loss of the trajectory's group."""
        margins_N = siblings.margins_N
        if self.per_token:
            margins_N = margins_N / siblings.lengths_N.to(margins_N.dtype)
        pairs_NN = best_and_worst(siblings)
        losses_NN = (margins_N[:, None] - margins_N[None, :] - 0.5 / self.beta).square()
        found = pair_metrics(pairs_NN, siblings.margins_N)
        return group_mean(pairs_NN, losses_NN, siblings.group_N), found
