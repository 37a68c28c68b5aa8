"""Overlong filtering: what a limit cut off is compared with, and not trained on."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Annotated

from agentrl.core.protocols import Advantage
from agentrl.core.registry import register
from agentrl.core.shapes import DefaultPart, Slot
from agentrl.core.types import AdvantageOut, Finish, Scored, Stop, Trajectory


@register("advantage", "mask_truncated")
@dataclass(frozen=True, kw_only=True)
class MaskTruncated:
    """The advantages of `of`, with the tokens of truncated trajectories (stops `max_turns` and
    `max_tokens`, and `bad_action` where the last reply was cut off) left out of the loss and its
    counts (DAPO, arXiv 2503.14476, sec. 3.4, "Overlong Filtering"). Their rewards stay in the group
    statistics."""

    of: Annotated[Advantage, Slot("advantage")] = field(
        default_factory=DefaultPart("advantage", "grpo")
    )
    """The estimator."""

    @property
    def needs(self) -> frozenset[str]:
        """What the estimator needs."""
        return self.of.needs

    def __call__(self, scored: Scored) -> AdvantageOut:
        """The estimator's advantages with a narrower loss mask."""
        out = self.of(scored)
        keep = out.keep or tuple((None,) * len(group.trajectories) for group in scored.groups)
        return replace(
            out,
            keep=tuple(
                tuple(
                    (False,) * t.n_tokens if is_cut(t) else old
                    for t, old in zip(group.trajectories, keep_G, strict=True)
                )
                for group, keep_G in zip(scored.groups, keep, strict=True)
            ),
        )


def is_cut(trajectory: Trajectory) -> bool:
    """Whether a limit ended it: of turns, of the context, or of its last reply's tokens."""
    last = trajectory.turns[-1].finish if trajectory.turns else None
    is_half_said = trajectory.stop is Stop.BAD_ACTION and last is Finish.LENGTH
    return trajectory.stop.is_truncation or is_half_said
