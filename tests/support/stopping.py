"""Runs that are stopped between a step's metrics and its checkpoint, to be resumed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from agentrl.core import registry
from agentrl.core.config import Config
from agentrl.track.trajectories import EpisodeRecord
from agentrl.train.loop import train


class StoppedError(Exception):
    """What stands in for a kill."""


@dataclass(kw_only=True)
class StopAt:
    """A sink that ends the run when a step is logged: before its evaluation and checkpoint."""

    step: int

    def open(self, folder: Path, name: str, total_steps: int, *, resumed: int = 0) -> None: ...

    def episodes(self, step: int, episodes: Sequence[EpisodeRecord]) -> None: ...

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        if step == self.step:
            raise StoppedError

    def evaluation(self, step: int, name: str, numbers: Mapping[str, float]) -> None: ...

    def say(self, text: str) -> None: ...

    def close(self) -> None: ...


@pytest.fixture(autouse=True)
def stopping_sink(monkeypatch: pytest.MonkeyPatch) -> None:
    registry.names("track")
    monkeypatch.setitem(registry._parts["track"], "stop-at", StopAt)


def stopped(config: Config, step: int) -> None:
    """Train until step `step` is logged."""
    with pytest.raises(StoppedError):
        train(replace(config, track=(*config.track, StopAt(step=step))), "auto")
