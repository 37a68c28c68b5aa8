"""What broke in a run's episodes: the commonest error texts, counted."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from agentrl.evaluate.report_episodes import Place

MOST_TEXTS = 12
TEXT_LENGTH = 400
_VARYING = re.compile(r"0x[0-9a-fA-F]+|\d+(\.\d+)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureCount:
    """Failures that say the same, numbers aside."""

    where: str
    """The boundary that broke: env, engine or reward."""
    text: str
    """What the first of them said."""
    episodes: int
    first_step: int
    last_step: int
    phases: tuple[str, ...]


def failures(places: Sequence[Place]) -> list[FailureCount]:
    """The commonest failures of all episodes on disk, the most frequent first."""
    alike: dict[tuple[str, str], list[Place]] = {}
    for place in places:
        if place.head.failure is not None:
            where, _, text = place.head.failure.partition(": ")
            alike.setdefault((where, _VARYING.sub("#", text)), []).append(place)
    common = sorted(alike.items(), key=lambda item: -len(item[1]))[:MOST_TEXTS]
    return [
        FailureCount(
            where=where,
            text=(found[0].head.failure or "").partition(": ")[2][:TEXT_LENGTH],
            episodes=len(found),
            first_step=min(place.head.step for place in found),
            last_step=max(place.head.step for place in found),
            phases=tuple(sorted({place.head.phase for place in found})),
        )
        for (where, _), found in common
    ]
