"""Which of a solution's steps an episode took, whether it was sound, and whether it succeeded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge

from agentrl.core.errors import RewardError
from agentrl.core.registry import register
from agentrl.core.types import Json, Score, Task, Trajectory, Turn


@register("reward", "step_wise")
@dataclass(frozen=True, kw_only=True)
class StepWise:
    """`success + steps k + valid v`: `k` the share of `task.data["steps"]` that actions contain,
    `v` 1 if every reply of at least one was a valid action (StepGRPO of R1-VL, Zhang et al. 2025,
    arXiv 2503.12937, whose steps are those of a written reasoning). None without steps.

    A step is a text, or a list of texts of which any will do; case does not matter. A step is paid
    in the turn that takes it first, the rest in the last turn.
    """

    steps: Annotated[float, Ge(0)] = 0.1
    """Weight of the steps taken (0 or more)."""
    valid: Annotated[float, Ge(0)] = 1.0
    """Weight of having acted validly throughout (0 or more)."""

    async def __call__(self, trajectory: Trajectory) -> Score | None:
        """Value, turns that sum to it, and the parts.

        Raises:
            RewardError: the task's steps are no list of texts, or of lists of texts.
        """
        wanted = steps_of(trajectory.task)
        if wanted is None:
            return None
        open_steps = list(wanted)
        turns = []
        for turn in trajectory.turns:
            said = text_of(turn)
            left = [step for step in open_steps if not any(way in said for way in step)]
            turns.append(self.steps * (len(open_steps) - len(left)) / len(wanted))
            open_steps = left
        parts = {
            "success": float(bool(trajectory.success)),
            "steps": 1.0 - len(open_steps) / len(wanted),
            "valid": float(bool(turns) and not any(t.invalid for t in trajectory.turns)),
        }
        value = parts["success"] + self.steps * parts["steps"] + self.valid * parts["valid"]
        if turns:
            turns[-1] += parts["success"] + self.valid * parts["valid"]
        return Score(value=value, turns=tuple(turns), parts=parts)


def steps_of(task: Task) -> list[list[str]] | None:
    """The ways of each step, in lower case; None if the task has none.

    Raises:
        RewardError: they are something else.
    """
    raw = task.data.get("steps")
    if not raw:
        return None
    steps = [ways_of(one) for one in raw] if isinstance(raw, list | tuple) else []
    found = [ways for ways in steps if ways]
    if not found or len(found) != len(steps):
        raise RewardError(
            "step_wise: expected task.data['steps'] to be a list of texts, or of lists of texts "
            f"that will do as well (got {raw!r:.200}, task {task.id})"
        )
    return found


def ways_of(step: Json) -> list[str]:
    """The texts of one step, in lower case; empty if it has something else."""
    ways = [step] if isinstance(step, str) else step
    if not isinstance(ways, list | tuple):
        return []
    texts = [way.lower() for way in ways if isinstance(way, str) and way]
    return texts if len(texts) == len(ways) else []


def text_of(turn: Turn) -> str:
    """A turn's actions in lower case, one a line."""
    action = turn.action or ""
    return (action if isinstance(action, str) else "\n".join(action)).lower()
