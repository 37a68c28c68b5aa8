"""The seam of sinks: where a run's metrics and episodes go (`core/protocols.py` offers it)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pathlib import Path

    from agentrl.track.trajectories import EpisodeRecord


class Sink(Protocol):
    """Where metrics and trajectories go."""

    def open(self, folder: Path, name: str, total_steps: int, *, resumed: int = 0) -> None:
        """Begin, or go on after step `resumed`: what was logged for later steps is taken back."""

    def episodes(self, step: int, episodes: Sequence[EpisodeRecord]) -> None:
        """The step's training episodes, before its `log`: a sink shows a few of them or none."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """The step's metrics. A sink that cannot write them says so once and never raises for it:
        training goes on."""

    def evaluation(self, step: int, name: str, numbers: Mapping[str, float]) -> None:
        """An evaluation's success, reward and so on; `name` says of whom (`dev`, `final`, ...)."""

    def say(self, text: str) -> None:
        """One line for people."""

    def close(self) -> None:
        """Write what is left; may be called twice. Raises `TrackError` if metrics are lost."""
