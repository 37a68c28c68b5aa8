"""The seams between messages, tokens and actions; users import them from `core/protocols.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol, runtime_checkable

from agentrl.core.types import Action, Json, Message


class ActionFormat(Protocol):
    """Between the model's message and the env's action."""

    @property
    def system(self) -> str:
        """A system message that opens every episode; empty for none."""
        ...

    def parse(self, text: str) -> Action | None:
        """The canonical action, or None if the message holds none. Never evaluates or raises."""
        ...

    def write(self, action: Action) -> str:
        """The message that `parse` reads back as `action` (for demonstrations)."""
        ...

    def hint(self) -> str:
        """What to tell a model whose message did not parse."""
        ...


@runtime_checkable
class ToolFormat(ActionFormat, Protocol):
    """An action format whose actions are calls of the env's tools, as canonical JSON."""

    @property
    def tools_in(self) -> Literal["auto", "system"]:
        """Where the tools are listed: `auto` by the chat template if it can, else in the system
        message."""
        ...

    def calls(self, text: str, tools: Sequence[Mapping[str, Json]]) -> Action | None:
        """`parse`, knowing the types of the tools' arguments."""
        ...

    def describe(self, tools: Sequence[Mapping[str, Json]]) -> str:
        """What a system message says of the tools and of how to call them."""
        ...


class ContextPolicy(Protocol):
    """Which messages the model is shown. Whatever rewrites history opens a new row."""

    def __call__(self, messages: Sequence[Message]) -> list[Message]:
        """The messages to show, of all that were said so far."""
        ...


class Renderer(Protocol):
    """Messages to token ids, once, and only by appending where the template allows it."""

    stop_ids: frozenset[int]
    """Ids that end a reply: eos, the template's end of turn, the model's generation_config."""
    takes_tools: bool
    """Whether prompts list the tools; otherwise a system message must."""

    def prompt(
        self,
        messages: Sequence[Message],
        after: Sequence[int] = (),
        tools: Sequence[Mapping[str, Json]] = (),
    ) -> tuple[int, ...]:
        """Ids that end where the model's reply begins.

        `after` is the row so far (last prompt and the reply's ids). The result begins with `after`
        whenever the messages continue it; otherwise it is a fresh rendering, which opens a new row.
        `tools` are JSON schemas of callable functions, the same ones all through an episode.
        """
        ...

    def encode(self, text: str) -> tuple[int, ...]:
        """Ids of text that stands inside a reply without having been sampled."""
        ...

    def reply(self, text: str) -> tuple[int, ...]:
        """The tokens of a written reply, end of turn included (demonstrations only)."""
        ...

    def text(self, ids: Sequence[int]) -> str:
        """The reply that sampled ids say, without the end of turn."""
        ...
