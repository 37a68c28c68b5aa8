"""The reward of successes, shared out to the tokens where the policy was unsure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Gt, Le

from agentrl.core.registry import register
from agentrl.core.types import AdvantageOut, Group, Level, Scored


@register("advantage", "gtpo_entropy")
@dataclass(frozen=True, kw_only=True)
class EntropyWeighted:
    """`r_it = a r_i + b r_i d_t H_it / sum_k H_kt` where `r_i > 0`, over the `d_t` such siblings
    that still go on at token `t`, else `r_it = r_i`; then `(r_it - mean) / (std + eps)` over the
    group's tokens (after Tan et al. 2025, GTPO, arXiv 2508.04349; our reading).

    Entropies are clipped at their `quantile` over the step.
    """

    outcome: Annotated[float, Ge(0)] = 0.5
    """`a`: share of the reward that every token gets (0 or more)."""
    entropy: Annotated[float, Ge(0)] = 0.5
    """`b`: share that goes by entropy (0 or more)."""
    quantile: Annotated[float, Gt(0), Le(1)] = 0.95
    """Entropies above this quantile count as it."""
    eps: Annotated[float, Ge(0)] = 1e-4
    """Added to the standard deviation (>= 0)."""

    needs: ClassVar[frozenset[str]] = frozenset({"entropies"})

    def __call__(self, scored: Scored) -> AdvantageOut:
        """Advantages at token level."""
        assert scored.entropies is not None  # needs
        entropies = [
            [torch.tensor(own, dtype=torch.float64) for own in group] for group in scored.entropies
        ]
        flat = torch.cat([torch.zeros(0).double(), *(own for group in entropies for own in group)])
        most = quantile_of(flat, self.quantile) if len(flat) else 0.0
        return AdvantageOut(
            values=tuple(
                self._estimate(group, entropies_G, most)
                for group, entropies_G in zip(scored.groups, entropies, strict=True)
            ),
            level=Level.TOKEN,
        )

    def _estimate(
        self, group: Group, entropies_G: Sequence[torch.Tensor], most: float
    ) -> tuple[list[float] | None, ...]:
        rewards = dict(zip(group.scored, group.values, strict=True))
        clipped = {i: entropies_G[i].clamp(max=most) for i in rewards}
        width = max((len(h) for h in clipped.values()), default=0)
        alive, total = torch.zeros(width).double(), torch.zeros(width).double()
        for i, reward in rewards.items():
            if reward > 0:
                alive[: len(clipped[i])] += 1.0
                total[: len(clipped[i])] += clipped[i]
        shared = {}
        for i, reward in rewards.items():
            own = clipped[i]
            n = len(own)
            even = torch.where(total[:n] > 0, alive[:n] * own / total[:n].clamp(min=1e-12), 1.0)
            spread = self.outcome + self.entropy * even if reward > 0 else torch.ones(n).double()
            shared[i] = reward * spread
        every = torch.cat([*shared.values(), torch.zeros(0).double()])
        is_flat = len(every) < 2 or bool((every == every[0]).all())
        mean, std = (0.0, 1.0) if is_flat else (float(every.mean()), float(every.std()))
        return tuple(
            None
            if i not in shared
            else ((shared[i] - mean) / (std + self.eps) * (not is_flat)).tolist()
            for i in range(len(group.trajectories))
        )


def quantile_of(values_N: torch.Tensor, share: float) -> float:
    """Of at least one value, between neighbours in a straight line; without sorting, and for any
    number of them."""
    rank = share * (len(values_N) - 1)
    low = int(rank)
    here = float(values_N.kthvalue(low + 1).values)
    there = float(values_N.kthvalue(min(low + 2, len(values_N))).values)
    return here + (rank - low) * (there - here)
