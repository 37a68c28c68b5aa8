"""Typed tools: a function's signature is its JSON schema, and calls are checked against it.

What a tool cannot do is an answer as well: `RefusedError` says what was expected, in words for the
model. Nothing is evaluated, and no answer repeats more than a little of what it was given.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, cast, get_args, get_origin, get_type_hints

from agentrl.core.errors import did_you_mean
from agentrl.core.types import Json

LONGEST = 2_000
"""Characters that a text argument may have."""
LARGEST = 1_000_000
"""Bound of whole numbers, up and down."""

Record = dict[str, str | int]
World = dict[str, dict[str, Record]]
"""The state of all applications: records by key, in tables by name."""
TABLES = {
    "files": "files_ls",
    "events": "calendar_show",
    "people": "mail_people",
    "inbox": "mail_inbox",
    "sent": "",
    "goods": "shop_goods",
    "cart": "",
    "orders": "shop_orders",
    "purse": "shop_goods",
}
"""Each table, and the tool that shows its keys."""


class RefusedError(ValueError):
    """What was asked for cannot be done; the text says what was expected, for the model."""


class WrongCallError(RefusedError):
    """No tool takes such a call."""


def found(world: World, table: str, key: str) -> Record:
    """A record. Raises `RefusedError` if it is not there."""
    if key not in world[table]:
        raise RefusedError(
            f"expected one of {len(world[table])} {table} ({TABLES[table]} shows them), got "
            f"{brief(key)}"
        )
    return world[table][key]


def new(world: World, table: str, record: Record) -> str:
    """Add a record under a key that is free."""
    key = next(k for n in range(1, LARGEST) if (k := f"{table[0]}{n}") not in world[table])
    world[table][key] = record
    return key


@dataclass(frozen=True)
class Tool:
    """A function of the world and named arguments that answers with a text."""

    app: str
    run: Callable[..., str]

    @property
    def name(self) -> str:
        """`files_move` for the function `move` of the application `files`."""
        return f"{self.app}_{self.run.__name__}" if self.app else self.run.__name__

    @cached_property
    def parameters(self) -> dict[str, dict[str, Json]]:
        """The schema of each parameter; all are required."""
        hints = get_type_hints(self.run, include_extras=True)
        keys = list(inspect.signature(self.run).parameters)[1:]
        return {key: _schema(*get_args(hints[key])) for key in keys}

    @cached_property
    def schema(self) -> dict[str, Json]:
        """Name, description and parameters, as function-calling APIs want them."""
        return {
            "name": self.name,
            "description": inspect.getdoc(self.run) or "",
            "parameters": {
                "type": "object",
                "properties": self.parameters,
                "required": list(self.parameters),
            },
        }

    def check(self, arguments: Mapping[str, Json]) -> None:
        """Raise `WrongCallError` unless the arguments fit the schema."""
        names = ", ".join(self.parameters) or "no arguments"
        for key, value in arguments.items():
            if key not in self.parameters:
                near = did_you_mean(key[:60], self.parameters)
                raise WrongCallError(f"{self.name}: expected {names}, got {brief(key)}{near}")
            expected = _expected(value, self.parameters[key])
            if expected:
                raise WrongCallError(f"{self.name}: {key}: expected {expected}, got {brief(value)}")
        missing = [key for key in self.parameters if key not in arguments]
        if missing:
            raise WrongCallError(f"{self.name}: expected {', '.join(missing)} as well")


def _schema(kind: object, description: str) -> dict[str, Json]:
    if get_origin(kind) is Literal:
        return {"type": "string", "enum": list(get_args(kind)), "description": description}
    name = {str: "string", int: "integer"}[cast("type", kind)]
    return {"type": name, "description": description}


def _expected(value: Json, schema: Mapping[str, Json]) -> str:
    """What the schema wants in place of the value; empty if that is it."""
    choices = cast("Sequence[str] | None", schema.get("enum"))
    if choices is not None:
        return "" if value in choices else f"one of {', '.join(choices)}"
    if schema["type"] == "integer":
        is_whole = isinstance(value, int) and not isinstance(value, bool)
        return "" if is_whole and abs(cast("int", value)) <= LARGEST else "a whole number"
    if not isinstance(value, str) or not value.strip():
        return "a text"
    is_fit = len(value) <= LONGEST and value.isprintable()
    return "" if is_fit else f"at most {LONGEST} printable characters"


def brief(value: object) -> str:
    """A value as text, cut where it is long, without anything that cannot be encoded."""
    if isinstance(value, str):
        return repr(value) if len(value) <= 60 else f"{value[:60]!r}..."
    shown = repr(value) if value is None or isinstance(value, bool | int | float) else "several"
    return shown if len(shown) <= 60 else f"{shown[:60]}..."
