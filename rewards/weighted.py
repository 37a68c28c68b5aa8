"""Several rewards, added with weights."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import fsum

from agentrl.core.errors import ConfigError
from agentrl.core.protocols import Reward
from agentrl.core.registry import find, register
from agentrl.core.types import Score, Trajectory


@register("reward", "weighted")
@dataclass(frozen=True, kw_only=True)
class Weighted:
    """The weighted sum of other rewards, each with its default settings; None if any part is None.

    Turn scores are kept where every part gives them.
    """

    parts: Mapping[str, float] = field(default_factory=lambda: {"env": 1.0})
    """Name of a reward -> its weight."""

    def __post_init__(self) -> None:
        if not self.parts or "weighted" in self.parts:
            raise ConfigError(
                f"parts: expected rewards other than 'weighted' with weights, got {self.parts}"
            )
        rewards: dict[str, Reward] = {name: find("reward", name)() for name in self.parts}
        object.__setattr__(self, "_rewards", rewards)

    async def __call__(self, trajectory: Trajectory) -> Score | None:
        """Ask all parts at once and add them up."""
        rewards: dict[str, Reward] = self.__dict__["_rewards"]
        answers = await asyncio.gather(*(reward(trajectory) for reward in rewards.values()))
        scores = [a if isinstance(a, Score) or a is None else Score(value=a) for a in answers]
        known = [score for score in scores if score is not None]
        if len(known) < len(scores):
            return None
        weights = list(self.parts.values())
        turns = [score.turns for score in known if score.turns is not None]
        return Score(
            value=fsum(w * s.value for w, s in zip(weights, known, strict=True)),
            turns=tuple(
                fsum(w * value for w, value in zip(weights, column, strict=True))
                for column in zip(*turns, strict=True)
            )
            if len(turns) == len(known)
            else None,
            parts={name: score.value for name, score in zip(self.parts, known, strict=True)},
        )
