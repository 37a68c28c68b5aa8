"""REINFORCE with what the greedy policy earns as baseline."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import fmean
from typing import ClassVar

from agentrl.algo.returns import returns_to_go, turn_rewards
from agentrl.core.registry import register
from agentrl.core.types import AdvantageOut, Group, Level, Scored, Sum


@register("advantage", "remax")
@dataclass(frozen=True, kw_only=True)
class ReMax:
    """`R_k - b`: what a turn and those after it were paid, less the score `b` of one greedy episode
    of the same task and start (Li et al. 2024, ReMax, arXiv 2310.10505, eq. 6).

    The greedy episode is played beside each group and not trained on. Where it failed or could not
    be scored, `b` is the mean of the siblings' scores, which `credit/without_greedy` counts.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"greedy"})

    def __call__(self, scored: Scored) -> AdvantageOut:
        """Advantages at turn level; `credit/greedy` is the mean score of the greedy episodes."""
        baselines = [greedy_score(group) for group in scored.groups]
        known = [b for b in baselines if b is not None]
        return AdvantageOut(
            values=tuple(
                tuple(_estimate(group, b))
                for group, b in zip(scored.groups, baselines, strict=True)
            ),
            level=Level.TURN,
            metrics={
                "credit/greedy": Sum(sum(known), float(len(known))),
                "credit/without_greedy": Sum(float(len(baselines) - len(known))),
            },
        )


def greedy_score(group: Group) -> float | None:
    """What the group's greedy episode earned; None where it was not scored."""
    greedy = group.greedy
    return greedy.score.value if greedy is not None and greedy.is_scored and greedy.score else None


def _estimate(group: Group, baseline: float | None) -> Iterator[list[float] | None]:
    if baseline is None:
        baseline = fmean(group.values) if group.values else 0.0
    for trajectory in group.trajectories:
        if not trajectory.is_scored:
            yield None
        else:
            yield [r - baseline for r in returns_to_go(turn_rewards(trajectory), 1.0)]
