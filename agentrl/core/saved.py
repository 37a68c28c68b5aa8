"""An episode as it stands before a turn: what another one needs to go on from there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from agentrl.core.types import Image, Message


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """A snapshot of the env, and what had been said and counted by then."""

    env: object
    messages: tuple[Message, ...]
    said: tuple[Message, ...]
    pixels: Mapping[str, Image]
    metrics: Mapping[str, float]
    success: bool | None
    opening: str | None
    key: str | None
