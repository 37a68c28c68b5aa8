"""Progress as a bonus: what going on was worth beside answering at once (MRT, scalar)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge

from agentrl.core.registry import register
from agentrl.core.types import AdvantageOut, Group, Level, Scored, Sum, Trajectory


@register("advantage", "mrt")
@dataclass(frozen=True, kw_only=True)
class Progress:
    """`r_i + alpha (r_i - mean r_stop)` for siblings that went on, `r_i` for those that were told
    to answer at once, normalised in the group as GRPO does (MRT, Qu et al. 2025, arXiv 2503.07572).

    `baseline=stop` is `r_i - mean r_stop` instead. For `strategy=mrt`: the tokens before the cut
    are left out of the loss. Groups without an answer at once are GRPO's.
    """

    alpha: Annotated[float, Ge(0)] = 0.2
    """Weight of the progress (0 or more); the paper's was not found."""
    baseline: Literal["group", "stop"] = "group"
    """What a reward is compared with: the `group`'s mean, or that of those who answered at once."""
    eps: Annotated[float, Ge(0)] = 1e-4
    """Added to the standard deviation (0 or more)."""

    needs: ClassVar[frozenset[str]] = frozenset()

    def __call__(self, scored: Scored) -> AdvantageOut:
        """Advantages at trajectory level, with a loss mask; `mrt/progress` is the mean of
        `r_i - mean r_stop`."""
        values, gains = [], Sum(0.0, 0.0)
        for group in scored.groups:
            found, gained = self._estimate(group)
            values.append(tuple(found.get(i) for i in range(len(group.trajectories))))
            gains += Sum(sum(gained), float(len(gained)))
        return AdvantageOut(
            values=tuple(values),
            level=Level.TRAJECTORY,
            keep=tuple(tuple(map(behind, group.trajectories)) for group in scored.groups),
            metrics={"mrt/progress": gains} if gains.weight else {},
        )

    def _estimate(self, group: Group) -> tuple[dict[int, float], list[float]]:
        """The advantages, and what each sibling gained that went on."""
        rewards = dict(zip(group.scored, group.values, strict=True))
        stops = [r for i, r in rewards.items() if group.trajectories[i].budget == 0]
        gained = {
            i: r - fmean(stops)
            for i, r in rewards.items()
            if stops and group.trajectories[i].budget != 0
        }
        if self.baseline == "stop" and stops:
            mean = fmean(stops)
            return {i: r - mean for i, r in rewards.items()}, [*gained.values()]
        shaped = {i: r + self.alpha * gained.get(i, 0.0) for i, r in rewards.items()}
        return dict(zip(shaped, self._normalised([*shaped.values()]), strict=True)), [
            *gained.values()
        ]

    def _normalised(self, values: Sequence[float]) -> list[float]:
        if len(set(values)) <= 1:
            return [0.0] * len(values)
        mean, divisor = fmean(values), stdev(values) + self.eps
        return [(value - mean) / divisor for value in values]


def behind(trajectory: Trajectory) -> tuple[bool, ...] | None:
    """The sampled tokens behind its cut; None for all."""
    if not trajectory.progress:
        return None
    before = min(trajectory.progress[0][0], trajectory.n_tokens)
    return (False,) * before + (True,) * (trajectory.n_tokens - before)
