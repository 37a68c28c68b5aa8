"""Progress of each part of an episode as a reward where the part ends (MRT, dense)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, ClassVar

from annotated_types import Ge, Gt, Le

from agentrl.algo.returns import whitened
from agentrl.core.registry import register
from agentrl.core.types import AdvantageOut, Group, Level, Scored, Sum, Trajectory


@register("advantage", "mrt_dense")
@dataclass(frozen=True, kw_only=True)
class DenseProgress:
    """`R_t = r_t + gamma R_{t+1}` over the sampled tokens, whitened over those of the group, where
    the last token of part `j` is paid `alpha (J_j - J_{j-1})` and the last one of all the score
    (after Qu et al. 2025, MRT, arXiv 2503.07572; how returns are normalised is our reading).

    `J_j` is how likely an answer right behind the part would have been right, which
    `strategy=mrt_dense` finds out.
    """

    alpha: Annotated[float, Ge(0)] = 0.2
    """Weight of the progress (0 or more); the paper's was not found."""
    gamma: Annotated[float, Gt(0), Le(1)] = 1.0
    """Discount of a token (0..1)."""

    needs: ClassVar[frozenset[str]] = frozenset()

    def __call__(self, scored: Scored) -> AdvantageOut:
        """Advantages at token level; `mrt/regret` is the mean of `sum_j (1 - J_j)`."""
        chances = [
            [chance for _, chance in t.progress]
            for group in scored.groups
            for t in group.trajectories
            if t.progress
        ]
        total = sum(map(regret, chances))
        return AdvantageOut(
            values=tuple(self._estimate(group) for group in scored.groups),
            level=Level.TOKEN,
            metrics={"mrt/regret": Sum(total, float(len(chances)))} if chances else {},
        )

    def _estimate(self, group: Group) -> tuple[list[float] | None, ...]:
        returns = {i: self._returns(group.trajectories[i]) for i in group.scored}
        mean, divisor = whitened([r for own in returns.values() for r in own])
        return tuple(
            [(r - mean) / divisor for r in returns[i]] if i in returns else None
            for i in range(len(group.trajectories))
        )

    def _returns(self, trajectory: Trajectory) -> list[float]:
        assert trajectory.score is not None  # whoever asks has looked at is_scored
        n = trajectory.n_tokens
        paid = {n - 1: trajectory.score.value}
        places = [min(place, n) for place, _ in trajectory.progress]
        for place, gain in zip(
            places[1:], progress([c for _, c in trajectory.progress]), strict=True
        ):
            paid[place - 1] = paid.get(place - 1, 0.0) + self.alpha * gain
        later, found = 0.0, []
        for t in reversed(range(n)):
            later = paid.get(t, 0.0) + self.gamma * later
            found.append(later)
        return found[::-1]


def progress(chances: list[float]) -> list[float]:
    """`J_j - J_{j-1}`."""
    return [after - before for before, after in pairwise(chances)]


def regret(chances: list[float]) -> float:
    """`sum_j (1 - J_j)`: how much of the way an answer would still have been wrong."""
    return sum(1.0 - chance for chance in chances)
