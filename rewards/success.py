"""Whether the task was solved, whatever the env paid on the way."""

from __future__ import annotations

from dataclasses import dataclass

from agentrl.core.registry import register
from agentrl.core.types import Score, Trajectory


@register("reward", "success")
@dataclass(frozen=True, kw_only=True)
class Success:
    """1.0 for a solved task, else 0.0; None where the env never said."""

    async def __call__(self, trajectory: Trajectory) -> Score | None:
        """The verdict of `info["success"]`."""
        if trajectory.success is None:
            return None
        return Score(value=float(trajectory.success), parts={"success": float(trajectory.success)})
