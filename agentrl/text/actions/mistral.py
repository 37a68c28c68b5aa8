"""`[TOOL_CALLS]`: Mistral's calls, in the list form and in the form with `[ARGS]`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from agentrl.core.registry import register
from agentrl.core.types import Action, Json
from agentrl.text.calls import (
    NOTHING,
    Call,
    action_of,
    as_call,
    behind_thinking,
    calls_of,
    json_at,
    read_json,
    written,
)

MARK, ARGS = "[TOOL_CALLS]", "[ARGS]"
HEAD = re.compile(r"\s*([\w.:/-]+)\s*(?:\[CALL_ID\]\s*\w+\s*)?\[ARGS\]")


@register("actions", "mistral")
@dataclass(frozen=True, kw_only=True)
class MistralCalls:
    """`[TOOL_CALLS] [{...}, ...]` and `[TOOL_CALLS]name[ARGS]{...}` are both read."""

    style: Literal["args", "list"] = "args"
    """The form in which demonstrations are written; `list` is that of older models."""
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
        _, mark, behind = behind_thinking(text).partition(MARK)
        if not mark:
            return None
        found = self._list(behind) if behind.lstrip().startswith("[") else self._named(behind)
        return action_of(found) if found else None

    def _list(self, text: str) -> list[Call] | None:
        """The calls of a JSON list that is all there is."""
        values = read_json(text)
        if not isinstance(values, list):
            return None
        found = [as_call(value, "arguments") for value in values]
        known = [one for one in found if one is not None]
        return known if len(known) == len(found) else None

    def _named(self, text: str) -> list[Call] | None:
        """`name[ARGS]{...}`, each further one behind a mark of its own."""
        found: list[Call] = []
        while True:
            head = HEAD.match(text)
            arguments, end = json_at(text, head.end()) if head else (NOTHING, 0)
            if head is None or not isinstance(arguments, dict):
                return None
            found.append(Call(head[1], arguments))
            text = text[end:].lstrip()
            if not text:
                return found
            if not text.startswith(MARK):
                return None
            text = text[len(MARK) :]

    def write(self, action: Action) -> str:
        """The calls in the chosen style."""
        calls = calls_of(action)
        if self.style == "list":
            plain: list[Json] = [{"name": one.name, "arguments": one.arguments} for one in calls]
            return f"{MARK} {written(plain)}"
        return "".join(f"{MARK}{one.name}{ARGS}{written(one.arguments)}" for one in calls)

    def hint(self) -> str:
        """What a reply must hold."""
        form = (
            ' [{"name": "...", "arguments": {...}}]' if self.style == "list" else "name[ARGS]{...}"
        )
        return f"Your reply held no readable tool call. Write {MARK}{form}."

    def describe(self, tools: Sequence[Mapping[str, Json]]) -> str:
        """The schemas and the form of a call."""
        form = (
            ' [{"name": "...", "arguments": {...}}]' if self.style == "list" else "name[ARGS]{...}"
        )
        schemas = json.dumps(list(tools), ensure_ascii=False)
        return (
            f"You may call these functions: {schemas}\n"
            f"Write {MARK}{form} for a call, with its arguments as a JSON object."
        )
