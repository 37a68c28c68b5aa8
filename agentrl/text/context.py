"""Context policies: which messages the model is shown at a turn.

Whatever drops or rewrites an earlier message makes the next prompt begin differently, so that it
opens a new row; `full` never does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
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
        head, first = _split(messages, self.turns)
        return [*messages[:head], *messages[first:]]


@register("context", "last_images")
@dataclass(frozen=True, kw_only=True)
class LastImages:
    """Every text, and the latest pictures: an older message says that its pictures are gone."""

    images: Annotated[int, Ge(0)] = 1
    """How many of the latest pictures are shown (0 or more)."""
    note: str = "[earlier picture]"
    """What stands for each picture that is not shown."""

    def __call__(self, messages: Sequence[Message]) -> list[Message]:
        """All messages, the older ones without pictures."""
        left = self.images
        shown: list[Message] = []
        for message in reversed(messages):
            dropped = max(len(message.images) - left, 0)
            left = max(left - len(message.images), 0)
            if dropped:
                text = "\n".join([message.text, *[self.note] * dropped]).strip("\n")
                message = replace(message, text=text, images=message.images[dropped:])
            shown.append(message)
        return shown[::-1]


@register("context", "summary")
@dataclass(frozen=True, kw_only=True)
class Summary:
    """The task statement with a list of what was done so far, and the last exchanges.

    The list is made of the replies' own words, without their reasoning: no model writes it, and the
    same episode always gives the same list.
    """

    turns: Annotated[int, Ge(1)] = 2
    """How many of the latest observations are shown, each with the reply before it (>= 1)."""
    every: Annotated[int, Ge(1)] = 1
    """Turns that are summarised at a time: the history is rewritten only that often (>= 1)."""
    words: Annotated[int, Ge(1)] = 20
    """Most words that are kept of a reply (>= 1)."""
    title: str = "So far you did:"
    """What stands above the list."""
    closing: str = "</think>"
    """The end of a reply's reasoning; what stands before it is left out."""

    def __call__(self, messages: Sequence[Message]) -> list[Message]:
        """The head with the list, and at least the last `turns` observations."""
        replies = sum(message.role == "assistant" for message in messages)
        older = max(replies - self.turns, 0) // self.every * self.every
        head, first = _split(messages, replies - older)
        done = [m for m in messages[head:first] if m.role == "assistant"]
        if not done or not head:
            return list(messages)
        lines = [f"{k}. {self._short(reply)}" for k, reply in enumerate(done, 1)]
        statement = messages[head - 1]
        text = "\n".join([statement.text, "", self.title, *lines])
        return [*messages[: head - 1], replace(statement, text=text), *messages[first:]]

    def _short(self, reply: Message) -> str:
        """The reply's first words on one line."""
        said = reply.text.rpartition(self.closing)[2].split()
        return " ".join(said[: self.words]) + (" ..." if len(said) > self.words else "")


def _split(messages: Sequence[Message], turns: int) -> tuple[int, int]:
    """The end of the head (up to the first user message), and where the last `turns` observations
    begin, with the reply before the first of them."""
    head = 1 + next((i for i, m in enumerate(messages) if m.role == "user"), -1)
    replies = [i for i, m in enumerate(messages) if m.role == "assistant"]
    return head, max(head, replies[-turns] if 0 < turns <= len(replies) else head)
