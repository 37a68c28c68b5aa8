"""Context policies: which messages the model is shown at a turn.

Whatever drops or rewrites an earlier message makes the next prompt begin differently, so that it
opens a new row; `full` never does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge

from agentrl.core.registry import register
from agentrl.core.types import Message


@register("context", "full")
@dataclass(frozen=True, kw_only=True)
class Full:
    """Everything since the start of the episode."""

    def __call__(self, messages: Sequence[Message]) -> list[Message]:
        """All messages."""
        return list(messages)


@register("context", "window")
@dataclass(frozen=True, kw_only=True)
class Window:
    """The task statement (system and first user message) and the last exchanges."""

    turns: Annotated[int, Ge(1)] = 1
    """How many of the latest observations are shown, each with the reply before it (>= 1)."""

    def __call__(self, messages: Sequence[Message]) -> list[Message]:
        """The head and the last `turns` observations."""
        head = 1 + next((i for i, m in enumerate(messages) if m.role == "user"), -1)
        replies = [i for i, m in enumerate(messages) if m.role == "assistant"]
        first = replies[-self.turns] if len(replies) >= self.turns else head
        return [*messages[:head], *messages[max(head, first) :]]
