"""Expert iteration: learn what was good enough, each way once."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import ClassVar

from agentrl.algo.keeping import kept_alone
from agentrl.core.registry import register
from agentrl.core.types import AdvantageOut, Group, Scored, Trajectory


@register("advantage", "expert_iteration")
@dataclass(frozen=True, kw_only=True)
class ExpertIteration:
    """1 for every trajectory whose reward is at least `min_reward`, shared by those of a group that
    sampled the same tokens; the others are left out of the loss and its counts (Anthony et al.
    2017, arXiv 1705.08439; for language models Zhao et al. 2025, arXiv 2504.07912).

    Under `loss=reinforce` this is supervised fine-tuning; with `optim.restart` each step begins at
    the weights that training began with.
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    min_reward: float = 1.0
    """Reward from which a trajectory is good enough."""

    def __call__(self, scored: Scored) -> AdvantageOut:
        """Advantages at trajectory level, from 0 to 1."""
        return kept_alone(scored, [self._weights(group) for group in scored.groups])

    def _weights(self, group: Group) -> list[float]:
        good = {
            i: said(group.trajectories[i])
            for i, value in zip(group.scored, group.values, strict=True)
            if value >= self.min_reward
        }
        copies = Counter(good.values())
        count = len(group.trajectories)
        return [1.0 / copies[good[i]] if i in good else 0.0 for i in range(count)]


def said(trajectory: Trajectory) -> tuple[tuple[int, ...], ...]:
    """What the policy sampled, turn by turn."""
    return tuple(turn.action_ids for turn in trajectory.turns)
