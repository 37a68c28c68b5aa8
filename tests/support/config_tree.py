"""A small config tree with one of each kind of field, and a part with rules of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Gt

from agentrl.core.protocols import Advantage, ContextPolicy
from agentrl.core.shapes import DefaultPart, Slot
from agentrl.core.types import Json, Message


@dataclass(frozen=True, kw_only=True)
class Step:
    lr: Annotated[float, Gt(0)] = 0.1
    schedule: Literal["constant", "linear"] = "constant"


def inline() -> dict[str, Json]:
    return {"size": 4, "rope": {"base": 10}}


@dataclass(frozen=True, kw_only=True)
class Tree:
    """A small tree with one of each kind of field."""

    optim: Step = field(default_factory=Step)
    again: Step | None = None
    advantage: Annotated[Advantage, Slot("advantage")] = field(
        default_factory=DefaultPart("advantage", "grpo")
    )
    view: Annotated[ContextPolicy | None, Slot("context")] = None
    views: tuple[Annotated[ContextPolicy, Slot("context")], ...] = ()
    steps: tuple[Step, ...] = ()
    name: str = "run"
    count: int = 1
    limit: int | None = None
    folder: Path = Path("runs")
    on: bool = True
    betas: tuple[float, float] = (0.9, 0.999)
    model: str | dict[str, Json] = field(default_factory=inline)


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A part with a part inside, a required setting and a rule."""

    first: Annotated[ContextPolicy, Slot("context")]
    share: float

    def __post_init__(self) -> None:
        if self.share > 1:
            raise ValueError(f"share: must be at most 1 (got {self.share})")

    def __call__(self, messages: Sequence[Message]) -> list[Message]:
        return list(messages)


def written(folder: Path, text: str) -> Path:
    path = folder / "run.yaml"
    path.write_text(text)
    return path
