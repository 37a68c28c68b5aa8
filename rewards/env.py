"""What the environment paid."""

from __future__ import annotations

from dataclasses import dataclass

from agentrl.core.registry import register
from agentrl.core.types import Score, Trajectory


@register("reward", "env")
@dataclass(frozen=True, kw_only=True)
class EnvReward:
    """The sum of the turns' env rewards, and the turns themselves."""

    async def __call__(self, trajectory: Trajectory) -> Score:
        """Value: the return of the episode (undiscounted)."""
        total = trajectory.env_return
        return Score(
            value=total, turns=tuple(turn.reward for turn in trajectory.turns), parts={"env": total}
        )
