"""Groups with given rewards, and batches with given numbers: what estimators and losses are fed."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from agentrl.core.tensors import Batch, Scores
from agentrl.core.types import Group, Score, Scored, Stop, Task, Trajectory, Turn

TASK = Task(id="credit/0", seed=0)
TURN = Turn(prompt_ids=(1,), action_ids=(2,), sampler_logprobs=(0.0,))


def rewarded(rewards_G: Sequence[float | None]) -> Group:
    """A group whose trajectories got these rewards; None failed."""
    return Group(
        task=TASK,
        trajectories=tuple(
            Trajectory(
                task=TASK,
                turns=(TURN,),
                stop=Stop.ERROR if reward is None else Stop.DONE,
                score=None if reward is None else Score(value=reward),
            )
            for reward in rewards_G
        ),
    )


def turned(
    tokens_K: Sequence[int],
    reward: float,
    *,
    turns: tuple[float, ...] | None = None,
    first_id: int = 10,
) -> Trajectory:
    """An episode whose turns sampled so many tokens, and which was scored like that."""
    return Trajectory(
        task=TASK,
        turns=tuple(
            Turn(
                prompt_ids=(1,),
                action_ids=tuple(range(first_id, first_id + count)),
                sampler_logprobs=(0.0,) * count,
            )
            for count in tokens_K
        ),
        stop=Stop.DONE,
        score=Score(value=reward, turns=turns),
    )


def scored(*groups: Sequence[float | None]) -> Scored:
    """A step of such groups."""
    return Scored(groups=tuple(rewarded(group) for group in groups))


def batch(
    mask_BT: torch.Tensor,
    advantages_BT: torch.Tensor,
    *,
    old_BT: torch.Tensor | None = None,
    ref_BT: torch.Tensor | None = None,
    sampler_BT: torch.Tensor | None = None,
) -> Batch:
    """A batch of one-row trajectories that is a whole step."""
    rows, width = mask_BT.shape
    lengths_B = mask_BT.sum(-1)
    return Batch(
        ids_BT=torch.zeros(rows, width, dtype=torch.long),
        mask_BT=mask_BT,
        old_logprobs_BT=old_BT,
        sampler_logprobs_BT=torch.zeros_like(advantages_BT) if sampler_BT is None else sampler_BT,
        ref_logprobs_BT=ref_BT,
        advantages_BT=advantages_BT,
        turn_BT=torch.where(mask_BT, 0, -1),
        temperature_B=torch.ones(rows),
        trajectory_B=torch.arange(rows),
        group_B=torch.zeros(rows, dtype=torch.long),
        lengths_B=lengths_B.to(advantages_BT.dtype),
        n_tokens=int(lengths_B.sum()),
        n_trajectories=int((lengths_B > 0).sum()),
    )


def scores(logp_BT: torch.Tensor) -> Scores:
    """Scores that say these logprobs."""
    return Scores(logp_BT=logp_BT, entropy_BT=torch.zeros_like(logp_BT))
