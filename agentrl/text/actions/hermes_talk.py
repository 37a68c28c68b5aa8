"""`hermes`, where a message may also call nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agentrl.core.errors import DataError
from agentrl.core.registry import register
from agentrl.core.types import Action, Json
from agentrl.text.actions.hermes import HermesCalls
from agentrl.text.calls import behind_thinking


@register("actions", "hermes_talk")
@dataclass(frozen=True, kw_only=True)
class HermesTalk(HermesCalls):
    """As `hermes`; but a message without a readable call is the action itself, for envs in which
    the model may answer, or end its turn, in words."""

    def calls(self, text: str, tools: Sequence[Mapping[str, Json]]) -> Action | None:
        """The calls in order, else the trimmed text; None for an empty message."""
        return super().calls(text, tools) or behind_thinking(text).strip() or None

    def write(self, action: Action) -> str:
        """The calls between their tags; a text that is no call as it is."""
        try:
            return super().write(action)
        except DataError:
            if isinstance(action, str):
                return action
            raise
