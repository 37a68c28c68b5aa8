"""Several rewards, each normalised on its own before they are added."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import fsum
from typing import Annotated, ClassVar

from annotated_types import Ge

from agentrl.algo.returns import mean_and_variance
from agentrl.core.errors import DataError, did_you_mean
from agentrl.core.registry import register
from agentrl.core.types import AdvantageOut, Group, Level, Score, Scored


@register("advantage", "gdpo")
@dataclass(frozen=True, kw_only=True)
class DecoupledNormalised:
    """`s_i = sum_k w_k (r_ik - mean_k) / (std_k + eps)` within the group, over the parts `k` of a
    score, then `(s_i - mean) / (std + eps)` over the step (Liu et al. 2026, arXiv 2601.05242).

    A sum of rewards that is normalised as one loses what its small parts say. A score without
    parts is one part.
    """

    weights: Mapping[str, float] = field(default_factory=dict)
    """Part -> weight; parts that are not named weigh 1."""
    eps: Annotated[float, Ge(0)] = 1e-4
    """Added to each standard deviation (>= 0)."""

    needs: ClassVar[frozenset[str]] = frozenset()

    def __call__(self, scored: Scored) -> AdvantageOut:
        """Advantages at trajectory level.

        Raises:
            DataError: siblings have different parts, or a weight names a part that no score has.
        """
        sums = [self._sums(group) for group in scored.groups]
        flat = [value for group in sums for value in group.values()]
        mean, variance = mean_and_variance(flat)
        divisor = variance**0.5 + self.eps
        is_flat = len(set(flat)) <= 1
        return AdvantageOut(
            values=tuple(
                tuple(
                    None if i not in found else 0.0 if is_flat else (found[i] - mean) / divisor
                    for i in range(len(group.trajectories))
                )
                for group, found in zip(scored.groups, sums, strict=True)
            ),
            level=Level.TRAJECTORY,
        )

    def _sums(self, group: Group) -> dict[int, float]:
        parts = {i: _parts(group.trajectories[i].score) for i in group.scored}
        found = dict.fromkeys(parts, 0.0)
        names = next(iter(parts.values()), {}).keys()
        for i, values in parts.items():
            if values.keys() != names:
                raise DataError(
                    f"gdpo: trajectory {i} of task {group.task.id} has the reward parts "
                    f"{sorted(values)} and a sibling has {sorted(names)}"
                )
        for unknown in self.weights.keys() - names if names else ():
            raise DataError(
                f"gdpo.weights: no reward part is called {unknown!r}"
                f"{did_you_mean(unknown, names)} (parts: {', '.join(sorted(names))})"
            )
        for name in names:
            column = [values[name] for values in parts.values()]
            weighed = zip(found, self._normalised(column), strict=True)
            for i, value in weighed:
                found[i] = fsum((found[i], self.weights.get(name, 1.0) * value))
        return found

    def _normalised(self, column: Sequence[float]) -> list[float]:
        if len(set(column)) <= 1:
            return [0.0] * len(column)
        mean, variance = mean_and_variance(column)
        return [(value - mean) / (variance**0.5 + self.eps) for value in column]


def _parts(score: Score | None) -> Mapping[str, float]:
    assert score is not None  # group.scored has it
    return score.parts or {"reward": score.value}
