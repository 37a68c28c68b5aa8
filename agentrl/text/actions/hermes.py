"""`<tool_call>{"name": ..., "arguments": {...}}</tool_call>`: Hermes, Qwen2.5, Qwen3."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from agentrl.core.registry import register
from agentrl.core.types import Action, Json
from agentrl.text.calls import (
    action_of,
    as_call,
    behind_thinking,
    calls_of,
    json_at,
    written,
)

OPEN, CLOSE = "<tool_call>", "</tool_call>"


@register("actions", "hermes")
@dataclass(frozen=True, kw_only=True)
class HermesCalls:
    """Every `<tool_call>` of the message is a call; one that cannot be read spoils the message."""

    system: str = ""
    """A system message that opens every episode; empty for none."""
    tools_in: Literal["auto", "system"] = "auto"
    """Where the tools are listed: `auto` by the chat template if it can, else in the system
    message."""

    def parse(self, text: str) -> Action | None:
        """The calls in order, as canonical JSON."""
        return self.calls(text, ())

    def calls(self, text: str, tools: Sequence[Mapping[str, Json]]) -> Action | None:
        """The same: JSON says its types itself."""
        text = behind_thinking(text)
        found = []
        at = text.find(OPEN)
        while at >= 0:
            value, end = json_at(text, at + len(OPEN))
            one = as_call(value, "arguments")
            rest = text[end:].lstrip()
            if one is None or not rest.startswith(CLOSE):
                return None
            found.append(one)
            text = rest[len(CLOSE) :]
            at = text.find(OPEN)
        return action_of(found)

    def write(self, action: Action) -> str:
        """Each call between its tags, on lines of their own."""
        return "\n".join(
            f"{OPEN}\n{written({'name': one.name, 'arguments': one.arguments})}\n{CLOSE}"
            for one in calls_of(action)
        )

    def hint(self) -> str:
        """What a reply must hold."""
        return (
            "Your reply held no readable tool call. Write "
            f'{OPEN}{{"name": "...", "arguments": {{...}}}}{CLOSE}.'
        )

    def describe(self, tools: Sequence[Mapping[str, Json]]) -> str:
        """The schemas, one a line, and the form of a call."""
        schemas = "\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools)
        return (
            "You may call functions. Their signatures, one JSON object a line:\n"
            f"<tools>\n{schemas}\n</tools>\n"
            "For each call write a JSON object with the function's name and its arguments:\n"
            f'{OPEN}\n{{"name": "...", "arguments": {{...}}}}\n{CLOSE}'
        )
