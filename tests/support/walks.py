"""Episodes by the states that they enter: what bonuses are fed."""

from __future__ import annotations

from collections.abc import Sequence

from agentrl.core.types import Fork, Group, Score, Stop, Task, Trajectory, Turn


def walk(
    states: Sequence[str],
    *,
    start: str = "start",
    heard: Sequence[str] | None = None,
    opening: str = "",
    reward: float = 0.0,
    task: str = "walk/0",
    parent: Fork | None = None,
    keys: bool = True,
) -> Trajectory:
    """An episode that enters these states in order and then ends; the reward comes last."""
    before = [start, *states]
    turns = [
        Turn(
            prompt_ids=(1, *(2, 3, 4) * k),
            action_ids=(2, 3),
            sampler_logprobs=(0.0, 0.0),
            state_key=before[k] if keys else None,
            led_to=state if keys else None,
            heard=heard[k] if heard is not None else None,
            action=f"to {state}",
            reward=reward if k == len(states) - 1 else 0.0,
        )
        for k, state in enumerate(states)
    ]
    return Trajectory(
        task=Task(id=task, seed=0),
        turns=tuple(turns),
        stop=Stop.DONE,
        score=Score(value=reward),
        success=reward > 0,
        opening=opening,
        parent=parent,
    )


def walks(
    *states: Sequence[str],
    task: str = "walk/0",
    start: str = "start",
    branch_at: int | None = None,
    episodes: Sequence[Trajectory] = (),
) -> Group:
    """Siblings that enter these states; with `branch_at`, all but the first share so many of the
    first one's turns."""
    found = [*episodes]
    for own in states:
        parent = Fork(0, branch_at) if found and branch_at is not None else None
        found.append(walk(own, task=task, start=start, parent=parent))
    return Group(task=Task(id=task, seed=0), trajectories=tuple(found))
