"""Rewards backed up a tree of branches."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import fmean
from typing import ClassVar

from agentrl.core.registry import register
from agentrl.core.types import AdvantageOut, Group, Level, Scored


@register("advantage", "tree")
@dataclass(frozen=True, kw_only=True)
class TreeBackup:
    """`((V - V_root) + (V - V_parent)) / sqrt(n)` of each part of a branched episode: `V` is the
    mean reward of the `n` siblings that go through the part, `V_parent` that of the part before it,
    `V_root` the group's (TreeRL, Hou et al. 2025, arXiv 2506.11902).

    For strategies that branch (`entropy_tree`, `snapshot_tree`); without branches it is twice the
    centred reward. Rewards are those of whole episodes.
    """

    reweight: bool = True
    """Divide by the root of `n`: a part that many siblings share does not weigh more for that. The
    paper trains it once for each of them; under `rollout.shared=once` it is trained once."""

    needs: ClassVar[frozenset[str]] = frozenset()

    def __call__(self, scored: Scored) -> AdvantageOut:
        """Advantages at turn level."""
        return AdvantageOut(
            values=tuple(self._estimate(group) for group in scored.groups), level=Level.TURN
        )

    def _estimate(self, group: Group) -> tuple[tuple[float, ...] | None, ...]:
        rewards = dict(zip(group.scored, group.values, strict=True))
        through: dict[tuple[int, int], list[int]] = {}
        for i in rewards:
            for k in range(len(group.trajectories[i].turns)):
                through.setdefault(group.owner(i, k), []).append(i)
        root = fmean(rewards.values()) if rewards else 0.0
        found: list[tuple[float, ...] | None] = []
        for i, trajectory in enumerate(group.trajectories):
            if i not in rewards:
                found.append(None)
                continue
            values, parent, before, own = [], root, root, list(rewards)
            for k in range(len(trajectory.turns)):
                leaves = through[group.owner(i, k)]
                if leaves != own:
                    own, parent, before = leaves, before, fmean(rewards[j] for j in leaves)
                value = (before - root) + (before - parent)
                values.append(value / math.sqrt(len(own)) if self.reweight else value)
            found.append(tuple(values))
        return tuple(found)
