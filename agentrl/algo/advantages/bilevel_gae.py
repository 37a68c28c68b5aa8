"""A critic's values on two levels: over turns, then over the tokens of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Gt, Le

from agentrl.algo.gae import Episode, Tokens, episodes_of, gae, lists_of, ragged
from agentrl.core.registry import register
from agentrl.core.types import AdvantageOut, Level, Scored


@register("advantage", "bilevel_gae")
@dataclass(frozen=True, kw_only=True)
class BilevelGae:
    """GAE over the last tokens of the turns with `gamma_turn`; then inside each turn, from its last
    token back, with `gamma_token`, where the turn's `A_k + V_k` is the reward of its last token and
    nothing follows it (Bi-Level GAE of VAGEN, Wang et al. 2025, arXiv 2510.16907). Whitened over
    the sampled tokens of the step.

    Turns end where they end: the released code looks for rewards that are not 0, and there a turn
    that is paid nothing melts into the next. Critic's targets and ends as in `token_gae`. Needs
    `critic`.
    """

    gamma_turn: Annotated[float, Gt(0), Le(1)] = 0.95
    """Discount of a turn (0..1)."""
    gamma_token: Annotated[float, Gt(0), Le(1)] = 1.0
    """Discount of a token inside its turn (0..1)."""
    lam: Annotated[float, Ge(0), Le(1)] = 1.0
    """Between one step's error (0) and whole returns (1), on both levels."""
    whiten: bool = True
    """Mean 0 and deviation 1 over the tokens of the step."""

    needs: ClassVar[frozenset[str]] = frozenset({"values"})

    def __call__(self, scored: Scored) -> AdvantageOut:
        """Advantages at token level. Raises `DataError` if the step has no values."""
        episodes = [*episodes_of(scored)]
        tokens = Tokens.of(episodes, [self._turns(episode) for episode in episodes])
        tokens.following_TB[tokens.is_end_TB] = 0.0
        decay = torch.full_like(tokens.values_TB, self.gamma_token * self.lam)
        decay_TB = decay.masked_fill_(tokens.is_end_TB, 0.0)
        found_TB = tokens.advantages(self.gamma_token, decay_TB)
        targets = lists_of(found_TB + tokens.values_TB, episodes)
        found_TB = tokens.whitened(found_TB) if self.whiten else found_TB
        return AdvantageOut(
            values=ragged(scored, episodes, lists_of(found_TB, episodes)),
            level=Level.TOKEN,
            returns=ragged(scored, episodes, targets),
        )

    def _turns(self, episode: Episode) -> list[float]:
        """`A_k + V_k` of each turn, at its last token."""
        values = [episode.values[step.last] for step in episode.steps]
        found = gae(
            [step.reward for step in episode.steps],
            values,
            gamma=self.gamma_turn,
            lam=self.lam,
            beyond=episode.beyond,
        )
        return [advantage + value for advantage, value in zip(found, values, strict=True)]
