"""Taking down an episode as it stands, and putting another one where it stood."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentrl.core.saved import Saved

if TYPE_CHECKING:
    from agentrl.rollout.episode import Episode


def saved(episode: Episode, snapshot: object) -> Saved:
    """The episode as it stands, with what its env's `snapshot` gave."""
    return Saved(
        env=snapshot,
        messages=tuple(episode.messages),
        said=tuple(episode.said),
        pixels=dict(episode.pixels),
        metrics=dict(episode.metrics),
        success=episode.success,
        opening=episode.opening,
        key=episode.key,
    )


def put(episode: Episode, found: Saved) -> None:
    """Put a branch, whose env was restored, where its parent stood."""
    assert episode.fork is not None  # only a branch has somewhere to go on from
    parent, fork = episode.fork
    episode.turns = list(parent.turns[: fork.turn])
    episode.messages, episode.said = list(found.messages), list(found.said)
    episode.pixels, episode.metrics = dict(found.pixels), dict(found.metrics)
    episode.success, episode.opening, episode.key = found.success, found.opening, found.key
