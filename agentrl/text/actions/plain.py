"""The whole message is the action."""

from __future__ import annotations

from dataclasses import dataclass

from agentrl.core.registry import register
from agentrl.core.types import Action


@register("actions", "plain")
@dataclass(frozen=True, kw_only=True)
class PlainAction:
    """The message, trimmed, is the action; an empty one is none."""

    system: str = ""
    """A system message that opens every episode; empty for none."""

    def parse(self, text: str) -> Action | None:
        """The trimmed text."""
        return text.strip() or None

    def write(self, action: Action) -> str:
        """The action itself."""
        return action if isinstance(action, str) else "\n".join(action)

    def hint(self) -> str:
        """What a reply must be."""
        return "Reply with one action and nothing else."
