"""A critic's values, token by token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Ge, Gt, Le

from agentrl.algo.gae import Tokens, episodes_of, lists_of, ragged
from agentrl.core.registry import register
from agentrl.core.types import AdvantageOut, Level, Scored


@register("advantage", "token_gae")
@dataclass(frozen=True, kw_only=True)
class TokenGae:
    """`A_t = d_t + gamma lam A_{t+1}`, `d_t = r_t + gamma V_{t+1} - V_t` over the sampled tokens of
    a trajectory (GAE, Schulman et al. 2016, arXiv 1506.02438, eq. 16), whitened over the step.

    A turn's reward falls on its last token. The critic's targets are `A_t + V_t` before whitening.
    Behind a truncation stands the critic's value, behind any other end 0. Needs `critic`.
    """

    gamma: Annotated[float, Gt(0), Le(1)] = 1.0
    """Discount of a token (0..1)."""
    lam: Annotated[float, Ge(0), Le(1)] = 1.0
    """Between one step's error (0) and whole returns (1)."""
    whiten: bool = True
    """Mean 0 and deviation 1 over the tokens of the step."""

    needs: ClassVar[frozenset[str]] = frozenset({"values"})

    def __call__(self, scored: Scored) -> AdvantageOut:
        """Advantages at token level. Raises `DataError` if the step has no values."""
        episodes = [*episodes_of(scored)]
        tokens = Tokens.of(episodes)
        found_TB = tokens.advantages(self.gamma, self.gamma * self.lam)
        targets = lists_of(found_TB + tokens.values_TB, episodes)
        found_TB = tokens.whitened(found_TB) if self.whiten else found_TB
        return AdvantageOut(
            values=ragged(scored, episodes, lists_of(found_TB, episodes)),
            level=Level.TOKEN,
            returns=ragged(scored, episodes, targets),
        )
