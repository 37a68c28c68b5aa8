"""`<tool_call><function=name><parameter=key>value</parameter></function></tool_call>`: Qwen3-Coder.

Values are bare text. A parameter that its schema calls a string is taken as it stands; any other
must be JSON of the type that the schema says. Without a schema, what reads as JSON is JSON and the
rest is a string. A string in quotes is a JSON string in each case, so that every string can be
written.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from agentrl.core.errors import DataError
from agentrl.core.registry import register
from agentrl.core.types import Action, Json
from agentrl.text.calls import (
    NOTHING,
    Call,
    action_of,
    behind_thinking,
    calls_of,
    read_json,
    types_of,
)

OPEN, CLOSE = "<tool_call>", "</tool_call>"
FUNCTION = re.compile(r"\s*<function=([\w.:/-]+)>(.*?)</function>\s*</tool_call>", re.DOTALL)
PARAMETER = re.compile(r"\s*<parameter=([^<>\n]+)>(.*?)</parameter>", re.DOTALL)


@register("actions", "qwen_xml")
@dataclass(frozen=True, kw_only=True)
class QwenXmlCalls:
    """Every `<tool_call>` of the message is a call; one that cannot be read spoils the message."""

    system: str = ""
    """A system message that opens every episode; empty for none."""
    tools_in: Literal["auto", "system"] = "auto"
    """Where the tools are listed: `auto` by the chat template if it can, else in the system
    message."""

    def parse(self, text: str) -> Action | None:
        """The calls in order, as canonical JSON, types as the values look."""
        return self.calls(text, ())

    def calls(self, text: str, tools: Sequence[Mapping[str, Json]]) -> Action | None:
        """The calls in order, as canonical JSON, types as the schemas say."""
        text = behind_thinking(text)
        found: list[Call] = []
        at = text.find(OPEN)
        while at >= 0:
            function = FUNCTION.match(text, at + len(OPEN))
            arguments = _arguments(function[2], types_of(tools, function[1])) if function else None
            if function is None or arguments is None:
                return None
            found.append(Call(function[1], arguments))
            at = text.find(OPEN, function.end())
        return action_of(found)

    def write(self, action: Action) -> str:
        """Each call between its tags. Raises `DataError` for a parameter that tags cannot name."""
        return "\n".join(_write(one) for one in calls_of(action))

    def hint(self) -> str:
        """What a reply must hold."""
        return (
            "Your reply held no readable tool call. Write "
            f"{OPEN}<function=NAME><parameter=KEY>VALUE</parameter></function>{CLOSE}."
        )

    def describe(self, tools: Sequence[Mapping[str, Json]]) -> str:
        """The schemas, one a line, and the form of a call."""
        schemas = "\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools)
        return (
            "You may call functions. Their signatures, one JSON object a line:\n"
            f"<tools>\n{schemas}\n</tools>\n"
            "A call looks like this, with one parameter block for each argument:\n"
            f"{OPEN}\n<function=NAME>\n<parameter=KEY>\nVALUE\n</parameter>\n</function>\n{CLOSE}"
        )


def _arguments(text: str, types: Mapping[str, str]) -> dict[str, Json] | None:
    """The parameters of one call; None if anything else stands between them."""
    found: dict[str, Json] = {}
    at = 0
    while block := PARAMETER.match(text, at):
        key = block[1]
        value = _value(block[2].removeprefix("\n").removesuffix("\n"), types.get(key))
        if key in found or value is NOTHING:
            return None
        found[key] = value  # type: ignore[assignment]
        at = block.end()
    return None if text[at:].strip() else found


def _value(text: str, kind: str | None) -> object:
    """A parameter's value, of the type that its schema says; `NOTHING` if it is none."""
    value = read_json(text)
    if kind == "string":
        return value if isinstance(value, str) else text
    if kind is None:
        return text if value is NOTHING else value
    return value if _is_of(value, kind) else NOTHING


def _is_of(value: object, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    types: dict[str, type | tuple[type, ...]] = {
        "integer": int,
        "number": (int, float),
        "array": list,
        "object": dict,
        "null": type(None),
    }
    return kind in types and isinstance(value, types[kind])


def _write(one: Call) -> str:
    blocks = []
    for key, value in one.arguments.items():
        if not re.fullmatch(r"[^<>\n]+", key):
            raise DataError(f"a parameter called {key!r} cannot be written in tags")
        blocks.append(f"<parameter={key}>\n{_bare(value)}\n</parameter>")
    return "\n".join([OPEN, f"<function={one.name}>", *blocks, "</function>", CLOSE])


def _bare(value: Json) -> str:
    """The value as text that reads back: a string bare where it can be."""
    if isinstance(value, str) and "<" not in value and read_json(value) is NOTHING:
        return value
    return json.dumps(value, ensure_ascii=False).replace("<", "\\u003c")
