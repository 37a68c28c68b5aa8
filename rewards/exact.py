"""Whether the last action says the task's answer."""

from __future__ import annotations

from dataclasses import dataclass

from agentrl.core.registry import register
from agentrl.core.types import Score, Trajectory


@register("reward", "exact")
@dataclass(frozen=True, kw_only=True)
class Exact:
    """1.0 if the last action equals `task.answer` after trimming, else 0.0; None without one."""

    casefold: bool = True
    """Whether upper and lower case are the same."""

    async def __call__(self, trajectory: Trajectory) -> Score | None:
        """Compare the last turn's canonical action with the answer."""
        answer = trajectory.task.answer
        if answer is None:
            return None
        said = trajectory.turns[-1].action if trajectory.turns else None
        is_right = isinstance(said, str) and self._plain(said) == self._plain(answer)
        return Score(value=float(is_right), parts={"exact": float(is_right)})

    def _plain(self, text: str) -> str:
        trimmed = text.strip()
        return trimmed.casefold() if self.casefold else trimmed
