"""Group-relative advantages for siblings that were told different budgets (HBPO)."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean
from typing import Annotated, ClassVar

from annotated_types import Ge, Gt

from agentrl.algo.advantages.grpo import GroupNormalised
from agentrl.core.budget import worth
from agentrl.core.registry import register
from agentrl.core.types import AdvantageOut, Group, Level, Scored


@register("advantage", "hbpo")
@dataclass(frozen=True, kw_only=True)
class BudgetGroups:
    """`(r_i - mean) / (std + eps) + weight (mean_b r - f(b))`: the reward normalised in the group,
    and what the siblings that were told the same budget `b` earned on average, less what a success
    of exactly `b` tokens is worth (HBPO, Lyu et al. 2025, arXiv 2507.15844).

    For `strategy=budget_subgroups` and `reward=budget`, whose `cap` and `peak` it has to be told.
    The released code adds the second term twice, which is `weight=2`.
    """

    weight: Annotated[float, Ge(0)] = 1.0
    """Of the subgroup's term (0 or more)."""
    cap: Annotated[int, Ge(1)] = 4096
    """The reward's (1 or more)."""
    peak: Annotated[float, Gt(0)] = 4.0
    """The reward's (above 0)."""
    eps: Annotated[float, Ge(0)] = 1e-6
    """Added to the standard deviation (0 or more)."""

    needs: ClassVar[frozenset[str]] = frozenset()

    def __call__(self, scored: Scored) -> AdvantageOut:
        """Advantages at trajectory level; without a budget GRPO's."""
        within = GroupNormalised(eps=self.eps)(scored).values
        values = []
        for group, own_G in zip(scored.groups, within, strict=True):
            above = self._above(group)
            values.append(
                tuple(
                    float(own) + above.get(t.budget, 0.0) if isinstance(own, float | int) else None
                    for t, own in zip(group.trajectories, own_G, strict=True)
                )
            )
        return AdvantageOut(values=tuple(values), level=Level.TRAJECTORY)

    def _above(self, group: Group) -> dict[int | None, float]:
        """The subgroup's term by budget."""
        earned: dict[int, list[float]] = {}
        for i, value in zip(group.scored, group.values, strict=True):
            budget = group.trajectories[i].budget
            if budget is not None:
                earned.setdefault(budget, []).append(value)
        return {
            budget: self.weight * (fmean(found) - worth(budget, self.cap, self.peak))
            for budget, found in earned.items()
        }
