"""Trajectories that are learned, and others that are left out: estimators that only choose."""

from __future__ import annotations

from agentrl.core.types import AdvantageOut, Level, Scored, Sum


def kept_alone(scored: Scored, weights_PG: list[list[float]]) -> AdvantageOut:
    """These weights as advantages; a trajectory of weight 0 is in no count of the loss."""
    values, keep, kept = [], [], 0
    for group, weights_G in zip(scored.groups, weights_PG, strict=True):
        pairs = list(zip(group.trajectories, weights_G, strict=True))
        values.append(tuple(w if t.is_scored else None for t, w in pairs))
        keep.append(tuple((w > 0,) * t.n_tokens for t, w in pairs))
        kept += sum(w > 0 for w in weights_G)
    total = sum(len(group.scored) for group in scored.groups)
    return AdvantageOut(
        values=tuple(values),
        level=Level.TRAJECTORY,
        keep=tuple(keep),
        metrics={"groups/kept": Sum(float(kept), float(total))},
    )
