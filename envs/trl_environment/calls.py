"""Tool calls as canonical JSON, `{"name": ..., "arguments": {...}}`, checked against a schema."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from agentrl.core.errors import did_you_mean

Schema = dict[str, object]
TYPES: dict[str, type | tuple[type, ...]] = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "array": list,
    "object": dict,
    "null": type(None),
}


class BadCallError(ValueError):
    """A call that no tool can take; the text is for the model."""


@dataclass(frozen=True, slots=True)
class Call:
    """What the model asks for."""

    name: str
    arguments: Mapping[str, object]


def is_call(text: str) -> bool:
    """Whether the text means to be a call: JSON, well formed or not."""
    return text.lstrip().startswith(("{", "["))


def read(text: str, schemas: Mapping[str, Schema]) -> Call:
    """The call that a JSON object makes. Raises `BadCallError` for what no tool can take."""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise BadCallError(f"not valid JSON: {error}") from error
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        raise BadCallError('expected {"name": NAME, "arguments": {...}}')
    name, arguments = value["name"], value.get("arguments", {})
    if name not in schemas:
        near = did_you_mean(name, schemas)
        raise BadCallError(f"no tool is called {name!r}{near} (known: {', '.join(schemas)})")
    if not isinstance(arguments, dict):
        raise BadCallError(f"{name}: arguments must be an object, not {arguments!r:.100}")
    _check(name, arguments, schemas[name])
    return Call(name, arguments)


def _check(name: str, arguments: Mapping[str, object], schema: Schema) -> None:
    function = cast("Schema", schema["function"])
    parameters = cast("Schema", function["parameters"])
    known = cast("Mapping[str, Schema]", parameters["properties"])
    required = cast("list[str]", parameters.get("required", []))
    for key, value in arguments.items():
        if key not in known:
            near = did_you_mean(key, known)
            raise BadCallError(
                f"{name}: no argument is called {key!r}{near} (known: {', '.join(known) or 'none'})"
            )
        _check_value(f"{name}: {key}", value, known[key])
    missing = [key for key in required if key not in arguments]
    if missing:
        raise BadCallError(f"{name}: missing {', '.join(missing)}")


def _check_value(where: str, value: object, schema: Schema) -> None:
    wanted = schema.get("type")
    names = [wanted] if isinstance(wanted, str) else wanted
    if isinstance(names, list) and not (value is None and schema.get("nullable")):
        fits = [isinstance(value, TYPES.get(str(name), object)) for name in names]
        is_truth = isinstance(value, bool) and "boolean" not in names
        if not any(fits) or is_truth:
            raise BadCallError(
                f"{where} must be {' or '.join(map(str, names))}, not {value!r:.100}"
            )
    choices = schema.get("enum")
    if isinstance(choices, list) and value not in choices:
        raise BadCallError(f"{where} must be one of {choices}, not {value!r:.100}")
