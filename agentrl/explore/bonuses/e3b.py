"""Observations unlike those that the episode saw before are worth more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from annotated_types import Ge, Gt, Le

from agentrl.core.registry import register
from agentrl.core.types import Group, Trajectory
from agentrl.explore.captions import passages
from agentrl.explore.hashed import Vector, embedded


@register("bonus", "e3b")
@dataclass(frozen=True, kw_only=True)
class Elliptical:
    """lambda phi^T C^-1 phi of what a turn was answered, with C = lambda I + sum phi phi^T over the
    episode so far: 1 for what shares nothing with it (E3B, Henaff et al. 2022, arXiv 2210.05805).

    phi is the hashed text, not a learned encoder; the paper's bonus is this one over lambda.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"texts"})

    ridge: Annotated[float, Gt(0)] = 0.1
    """lambda (above 0)."""
    size: Annotated[int, Ge(1), Le(256)] = 128
    """Length of phi (1 to 256)."""

    def rate(self, groups: Sequence[Group]) -> list[list[list[float]]]:
        """`[group][trajectory][turn]`, each 0..1."""
        return [[self._rate(t) for t in group.trajectories] for group in groups]

    def observe(self, groups: Sequence[Group]) -> None:
        """Nothing outlives an episode."""

    def _rate(self, trajectory: Trajectory) -> list[float]:
        ellipse = Ellipse(self.size, self.ridge)
        ellipse.add(embedded(trajectory.opening or "", self.size, places=True))
        return [
            min(1.0, self.ridge * ellipse.add(embedded(after, self.size, places=True)))
            for _, after in passages(trajectory)
        ]


class Ellipse:
    """C^-1, kept up to date by Sherman and Morrison's formula."""

    def __init__(self, size: int, ridge: float) -> None:
        self.inverse = np.eye(size) / ridge

    def add(self, phi: Vector) -> float:
        """`phi^T C^-1 phi`, before phi enters C."""
        u = self.inverse @ phi
        bonus = float(phi @ u)
        self.inverse -= np.outer(u, u) / (1.0 + bonus)
        return max(0.0, bonus)
