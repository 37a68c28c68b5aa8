"""What a success is worth by its length, and by the length that was asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Gt

from agentrl.core.budget import worth
from agentrl.core.registry import register
from agentrl.core.types import Score, Stop, Trajectory


@register("reward", "budget")
@dataclass(frozen=True, kw_only=True)
class BudgetReward:
    """`min(f(n) - |n - b| / cap, f(b))` for a success of `n` sampled tokens that was told to get by
    with `b`, `f(n) = peak cos(pi n / (2 cap))`; `f(n)` where nothing was said (HBPO, Lyu et al.
    2025, arXiv 2507.15844). A failure is worth 0, and so is a success of more than `cap` tokens.

    An episode whose last reply was no action is worth `unreadable`. The last turn gets it all.
    """

    cap: Annotated[int, Ge(1)] = 4096
    """Sampled tokens of an episode from which a success is worth nothing (1 or more)."""
    peak: Annotated[float, Gt(0)] = 4.0
    """What a success without any token would be worth (above 0)."""
    unreadable: float = -1.0
    """What an episode is worth whose last reply was no action."""

    async def __call__(self, trajectory: Trajectory) -> Score:
        """Value and turns."""
        value = self._value(trajectory)
        turns = (0.0,) * (len(trajectory.turns) - 1) + ((value,) if trajectory.turns else ())
        return Score(value=value, turns=turns)

    def _value(self, trajectory: Trajectory) -> float:
        n, b = trajectory.n_tokens, trajectory.budget
        if trajectory.stop is Stop.BAD_ACTION or (
            trajectory.turns and trajectory.turns[-1].invalid and not trajectory.success
        ):
            return self.unreadable
        if not trajectory.success or n > self.cap:
            return 0.0
        found = worth(n, self.cap, self.peak)
        if b is None:
            return found
        return min(found - abs(n - b) / self.cap, worth(b, self.cap, self.peak))
