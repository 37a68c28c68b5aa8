"""Supervised learning on what succeeded, beside any estimator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated

from annotated_types import Gt

from agentrl.core.protocols import Advantage
from agentrl.core.registry import register
from agentrl.core.shapes import DefaultPart, Slot
from agentrl.core.types import AdvantageOut, Scored, Trajectory


@register("advantage", "sft_mix")
@dataclass(frozen=True, kw_only=True)
class SftMix:
    """The advantages of `of`, plus `coef` on every token of a successful trajectory: on policy that
    is `coef` times the log-likelihood of successes in the loss (VAPO, arXiv 2504.05118, its
    "positive example LM loss").

    It passes through the surrogate, clip included. A group of nothing but successes, from which
    group estimators learn nothing, still teaches.
    """

    of: Annotated[Advantage, Slot("advantage")] = field(
        default_factory=DefaultPart("advantage", "grpo")
    )
    """The estimator."""
    coef: Annotated[float, Gt(0)] = 0.1
    """Weight of the log-likelihood (above 0)."""

    @property
    def needs(self) -> frozenset[str]:
        """What the estimator needs."""
        return self.of.needs

    def __call__(self, scored: Scored) -> AdvantageOut:
        """The estimator's advantages, at its level, raised where the trajectory succeeded."""
        out = self.of(scored)
        values = tuple(
            tuple(self._raised(t, v) for t, v in zip(group.trajectories, values_G, strict=True))
            for group, values_G in zip(scored.groups, out.values, strict=True)
        )
        return replace(out, values=values)

    def _raised(
        self, trajectory: Trajectory, value: float | Sequence[float] | None
    ) -> float | Sequence[float] | None:
        if value is None or not trajectory.success:
            return value
        if isinstance(value, float | int):
            return value + self.coef
        return tuple(v + self.coef for v in value)
