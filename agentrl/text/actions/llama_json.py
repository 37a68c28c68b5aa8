"""`{"name": ..., "parameters": {...}}`: the JSON calls of Llama 3.x."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from agentrl.core.registry import register
from agentrl.core.types import Action, Json
from agentrl.text.calls import action_of, as_call, behind_thinking, calls_of, objects_at, written

TAG = "<|python_tag|>"


@register("actions", "llama_json")
@dataclass(frozen=True, kw_only=True)
class LlamaCalls:
    """The whole message (or what follows `<|python_tag|>`) is calls, apart by `;` or new lines."""

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
        if not text.lstrip().startswith("{"):
            text = text.partition(TAG)[2]
        values = objects_at(text, 0, ";")
        found = [as_call(value, "parameters", "arguments") for value in values or ()]
        known = [one for one in found if one is not None]
        return action_of(known) if len(known) == len(found) else None

    def write(self, action: Action) -> str:
        """Each call on a line of its own, `;` between them."""
        return ";\n".join(
            written({"name": one.name, "parameters": one.arguments}) for one in calls_of(action)
        )

    def hint(self) -> str:
        """What a reply must be."""
        return (
            "Your reply was no readable function call. Reply with "
            '{"name": "...", "parameters": {...}} and nothing else.'
        )

    def describe(self, tools: Sequence[Mapping[str, Json]]) -> str:
        """The schemas and the form of a call."""
        schemas = "\n\n".join(json.dumps(tool, indent=4, ensure_ascii=False) for tool in tools)
        return (
            "You may call these functions:\n\n"
            f"{schemas}\n\n"
            'Answer with a call, {"name": "...", "parameters": {...}}, and nothing else; several '
            "calls are set apart by semicolons."
        )
