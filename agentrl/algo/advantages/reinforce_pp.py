"""REINFORCE with returns to go, whitened over the tokens of the step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Gt, Le

from agentrl.algo.returns import token_returns, whitened
from agentrl.core.registry import register
from agentrl.core.types import AdvantageOut, Level, Scored


@register("advantage", "reinforce_pp")
@dataclass(frozen=True, kw_only=True)
class ReinforcePlusPlus:
    """`R_t = r_t + gamma R_{t+1}` over the sampled tokens, `(R_t - mean) / std` over those of the
    step (Hu et al. 2025, arXiv 2501.03262).

    A turn's reward falls on its last token. The paper's KL in the reward is
    `kl: {name: k1, placement: reward}`, which charges turns where the reward tells them apart.
    """

    gamma: Annotated[float, Gt(0), Le(1)] = 1.0
    """Discount of a token (0..1)."""

    needs: ClassVar[frozenset[str]] = frozenset()

    def __call__(self, scored: Scored) -> AdvantageOut:
        """Advantages at token level."""
        returns = [
            [token_returns(t, self.gamma) if t.is_scored else None for t in group.trajectories]
            for group in scored.groups
        ]
        mean, divisor = whitened([r for group in returns for R in group if R for r in R])
        return AdvantageOut(
            values=tuple(
                tuple(None if R is None else [(r - mean) / divisor for r in R] for R in group)
                for group in returns
            ),
            level=Level.TOKEN,
        )
