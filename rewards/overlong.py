"""Another reward, less a penalty for episodes that near a length limit."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Annotated

from annotated_types import Ge, Gt

from agentrl.core.errors import ConfigError
from agentrl.core.protocols import GroupReward, Reward
from agentrl.core.registry import register
from agentrl.core.shapes import DefaultPart, Slot
from agentrl.core.types import Score, Trajectory


@register("reward", "overlong")
@dataclass(frozen=True, kw_only=True)
class Overlong:
    """`of` plus `-factor * clip((n - (limit - buffer)) / buffer, 0, 1)` for an episode of n sampled
    tokens: soft overlong punishment (DAPO, arXiv 2503.14476, eq. 13). The last turn pays it."""

    of: Annotated[Reward, Slot("reward")] = field(default_factory=DefaultPart("reward", "env"))
    """The reward that is shaped; one that scores single episodes."""
    limit: Annotated[int, Ge(1)] = 512
    """Sampled tokens of an episode at which the whole penalty is due (1 or more)."""
    buffer: Annotated[int, Ge(1)] = 128
    """Tokens before the limit over which the penalty grows (1 to `limit`)."""
    factor: Annotated[float, Gt(0)] = 1.0
    """The whole penalty (> 0)."""

    def __post_init__(self) -> None:
        if self.buffer > self.limit:
            raise ConfigError(f"buffer: must be at most limit={self.limit} (got {self.buffer})")
        if isinstance(self.of, GroupReward):
            raise ConfigError(
                f"of: {type(self.of).__name__} compares siblings; only a reward of single episodes "
                "can be shaped"
            )

    async def __call__(self, trajectory: Trajectory) -> Score | None:
        """The shaped score; None where the reward cannot tell."""
        answer = await self.of(trajectory)
        if answer is None:
            return None
        score = answer if isinstance(answer, Score) else Score(value=float(answer))
        beyond = (trajectory.n_tokens - (self.limit - self.buffer)) / self.buffer
        penalty = -self.factor * min(max(beyond, 0.0), 1.0) + 0.0
        turns = score.turns
        return replace(
            score,
            value=score.value + penalty,
            turns=(*turns[:-1], turns[-1] + penalty) if turns else turns,
            parts={**score.parts, "overlong": penalty},
        )
