"""Calls of tools as canonical JSON, and the strict reading of JSON that models write.

A call is one string, `{"arguments": {...}, "name": "..."}`: keys sorted, no spaces, no escapes that
UTF-8 does without. Two messages that say the same call give the same string. Nothing is evaluated,
and what is not exactly JSON (NaN, a key twice, a comma too many) is no call.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple, NoReturn

from agentrl.core.errors import DataError, EnvError
from agentrl.core.types import Action, Json

NAME = re.compile(r"[\w.:/-]{1,128}")
"""What a tool may be called."""


class Call(NamedTuple):
    """One call of a tool."""

    name: str
    arguments: Mapping[str, Json]


def call(name: str, **arguments: Json) -> str:
    """The canonical string of a call, for envs and their experts."""
    return canonical(Call(name, arguments))


def canonical(one: Call) -> str:
    """The canonical string of a call. Raises `DataError` if it has none."""
    if not isinstance(one.name, str) or not NAME.fullmatch(one.name):
        raise DataError(f"expected a tool's name (letters, digits, _.:/-), got {one.name!r:.200}")
    try:
        text = json.dumps(
            {"name": one.name, "arguments": one.arguments},
            ensure_ascii=False,
            sort_keys=True,
            separators=(",", ":"),
            allow_nan=False,
        )
        text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise DataError(
            f"the arguments of {one.name} cannot be written as JSON: {error}"
        ) from error
    return text


def calls_of(action: Action) -> list[Call]:
    """The calls that an action holds; a string may hold several, with white space between them.

    Raises:
        DataError: it holds something else.
    """
    found = []
    for text in [action] if isinstance(action, str) else action:
        for value in objects_at(text, 0, "") or [None]:
            one = as_call(value, "arguments")
            if one is None:
                raise DataError(
                    f"expected a call such as {call('look', at='x')}, got {text[:200]!r}"
                )
            found.append(one)
    return found


def action_of(calls: Sequence[Call]) -> Action | None:
    """The action that calls make: one string, a list for several, None for none or a wrong one."""
    try:
        texts = [canonical(one) for one in calls]
    except DataError:
        return None
    return (texts[0] if len(texts) == 1 else texts) if texts else None


def as_call(value: object, *arguments: str) -> Call | None:
    """The call that a JSON object says, its arguments under one of the given keys."""
    if not isinstance(value, dict):
        return None
    keys = [key for key in arguments if key in value]
    name = value.get("name")
    if len(keys) != 1 or not isinstance(name, str) or not NAME.fullmatch(name):
        return None
    found = value[keys[0]]
    if not isinstance(found, dict) or set(value) - {"name", keys[0], "id", "type"}:
        return None
    return Call(name, found)


def written(value: Json, **layout: int) -> str:
    """JSON as models write it, in which no argument can be taken for the end of reasoning."""
    text = json.dumps(value, ensure_ascii=False, **layout)  # type: ignore[arg-type]
    return text.replace("<think>", "\\u003cthink>").replace("</think>", "\\u003c/think>")


class _NoJsonError(ValueError):
    """Something that `json` reads and that is no JSON."""


def _refuse(text: str) -> NoReturn:
    raise _NoJsonError(text)


def _finite(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _refuse(text)


def _once(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    found = dict(pairs)
    return found if len(found) == len(pairs) else _refuse("a key twice")


_DECODER = json.JSONDecoder(
    parse_constant=_refuse, parse_float=_finite, object_pairs_hook=_once, strict=True
)
SPACE = re.compile(r"\s*")


class _Nothing:
    """No JSON was there (None is JSON's null)."""


NOTHING = _Nothing()


def json_at(text: str, start: int) -> tuple[Json | _Nothing, int]:
    """The JSON value that begins at `start`, white space skipped, and where it ends."""
    begin = _behind_space(text, start)
    try:
        value, end = _DECODER.raw_decode(text, begin)
    except (ValueError, RecursionError):
        return NOTHING, start
    return value, end


def read_json(text: str) -> Json | _Nothing:
    """The JSON value that is the whole text."""
    value, end = json_at(text, 0)
    return value if _behind_space(text, end) == len(text) else NOTHING


def _behind_space(text: str, at: int) -> int:
    found = SPACE.match(text, at)
    return found.end() if found else at


def objects_at(text: str, start: int, separator: str) -> list[Json] | None:
    """JSON values up to the end of the text, with white space and perhaps `separator` between."""
    values: list[Json] = []
    at = _behind_space(text, start)
    while at < len(text):
        value, end = json_at(text, at)
        if isinstance(value, _Nothing):
            return None
        values.append(value)
        at = _behind_space(text, end)
        if separator and text.startswith(separator, at):
            at = _behind_space(text, at + len(separator))
    return values


def behind_thinking(text: str) -> str:
    """The text behind the last `</think>`, up to reasoning that begins anew and never ends."""
    return text.rpartition("</think>")[2].partition("<think>")[0]


def as_tools(value: object) -> tuple[Mapping[str, Json], ...]:
    """The tools that an env named, each as `{"type": "function", "function": {...}}`.

    Raises:
        EnvError: they are no list of JSON schemas with names.
    """
    try:
        plain = json.loads(json.dumps(list(value), allow_nan=False))  # type: ignore[call-overload]
    except (TypeError, ValueError) as error:
        raise EnvError(
            f"expected a list of JSON schemas from tools(), got {value!r:.200}"
        ) from error
    tools = []
    for tool in plain:
        function = tool.get("function", tool) if isinstance(tool, dict) else None
        name = function.get("name") if isinstance(function, dict) else None
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise EnvError(
                "expected schemas such as {'name': 'look', 'description': ..., 'parameters': ...} "
                f"from tools(), got {tool!r:.200}"
            )
        tools.append({"type": "function", "function": function})
    return tuple(tools)


def types_of(tools: Sequence[Mapping[str, Json]], name: str) -> Mapping[str, str]:
    """The JSON types of the named tool's parameters, where its schema says them."""
    for tool in tools:
        function = tool.get("function")
        if not isinstance(function, dict) or function.get("name") != name:
            continue
        parameters = function.get("parameters")
        properties = parameters.get("properties") if isinstance(parameters, dict) else None
        if isinstance(properties, dict):
            return {
                key: kind
                for key, schema in properties.items()
                if isinstance(schema, dict) and isinstance(kind := schema.get("type"), str)
            }
    return {}
