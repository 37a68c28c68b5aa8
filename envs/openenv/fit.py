"""Between text and OpenEnv's typed messages: a reply becomes an action, an observation text.

What an action is made of is read in its JSON schema (pydantic's, as servers give it).
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from agentrl.core.errors import ConfigError, EnvError, did_you_mean
from agentrl.core.types import Image, Json
from agentrl.text.calls import NOTHING, as_call, read_json

WHOLE = "*"
"""In place of a field: the reply is the whole action, as JSON."""
CALL = "act"
"""The name of the action where it is called as a tool."""
Schema = Mapping[str, Json]


class UnfitError(ValueError):
    """A reply that is no action; the text is for the model."""


@dataclass(frozen=True, kw_only=True)
class ActionFit:
    """How replies become actions of one server."""

    schema: Schema
    field: str
    """The field that takes the reply, or `WHOLE`."""
    kinds: frozenset[str]
    """JSON types of that field; none if its schema does not say."""
    fixed: Mapping[str, Json]

    def action(self, reply: str) -> dict[str, Json]:
        """The action. Raises `UnfitError`."""
        if self.field == WHOLE:
            return {**self.fixed, **_whole(reply)}
        return {**self.fixed, self.field: _value(reply, self.kinds)}

    @property
    def tool(self) -> dict[str, Json]:
        """The action as a tool that a model can call."""
        told: dict[str, Json] = {
            "name": CALL,
            "description": str(self.schema.get("description") or "Act in the environment."),
            "parameters": self.schema,
        }
        return {"type": "function", "function": told}


def fit_action(schema: Schema, field: str, fixed: Mapping[str, Json], url: str) -> ActionFit:
    """Find the field that takes the reply: the named one, else the only one that must be given, or
    the only one there is.

    Raises:
        ConfigError: there is no such field, or more than one could be meant.
    """
    fields = cast("Mapping[str, Schema]", schema.get("properties") or {})
    known = {name: one for name, one in fields.items() if name not in ("metadata", *fixed)}
    told = ", ".join(f"{name} ({_said(one, schema)})" for name, one in known.items()) or "none"
    for name in fixed:
        if name not in fields:
            near = did_you_mean(name, fields)
            raise ConfigError(f"env.fixed: actions of {url} have no field {name!r}{near} ({told})")
    if field and field != WHOLE and field not in known:
        near = did_you_mean(field, known)
        raise ConfigError(f"env.field: actions of {url} have no field {field!r}{near} ({told})")
    if not field:
        required = cast("Sequence[str]", schema.get("required") or ())
        needed = [name for name in known if name in required] or list(known)
        if len(needed) != 1:
            raise ConfigError(
                f"env.field: actions of {url} have the fields {told}: name the one that takes "
                f"the reply, with the others in env.fixed, or take it as JSON: env.field='{WHOLE}'"
            )
        field = needed[0]
    kinds = frozenset() if field == WHOLE else _kinds(known[field], schema)
    return ActionFit(schema=schema, field=field, kinds=kinds, fixed=fixed)


def check_shown(schema: Schema, names: Sequence[str], key: str, url: str) -> None:
    """Raises `ConfigError` for fields that observations do not have."""
    fields = cast("Mapping[str, Schema]", schema.get("properties") or {})
    is_open = bool(schema.get("additionalProperties"))
    for name in names:
        if name and not is_open and name not in fields:
            near, known = did_you_mean(name, fields), ", ".join(fields) or "none"
            raise ConfigError(
                f"env.{key}: observations of {url} have no field {name!r}{near} (known: {known})"
            )


def written(observation: Mapping[str, Json], names: Sequence[str]) -> str:
    """An observation in words: one field as it is, several as lines `name: value`.

    Raises:
        EnvError: a field is absent.
    """
    absent = [name for name in names if name not in observation]
    if absent:
        raise EnvError(f"the observation has no {absent[0]!r} (it has: {', '.join(observation)})")
    if len(names) == 1:
        return _plain(observation[names[0]])
    return "\n".join(f"{name}: {_plain(observation[name])}" for name in names)


def pictures(value: Json) -> tuple[Image, ...]:
    """PNG pictures in base64, one or several. Raises `EnvError`."""
    texts = [value] if isinstance(value, str) else value or ()
    try:
        found = [
            base64.b64decode(str(one).partition("base64,")[2] or str(one), validate=True)
            for one in cast("Sequence[Json]", texts)
        ]
    except (ValueError, TypeError) as error:
        raise EnvError(f"expected PNG pictures in base64, got {value!r:.100}") from error
    return tuple(map(Image, found))


# --- values ---------------------------------------------------------------------------------------


def _whole(reply: str) -> dict[str, Json]:
    value = read_json(reply)
    one = as_call(value, "arguments")
    if one is not None and one.name == CALL:
        return dict(one.arguments)
    if not isinstance(value, dict):
        raise UnfitError("expected a JSON object")
    return value


def _value(reply: str, kinds: frozenset[str]) -> Json:
    if not kinds or "string" in kinds:
        return reply
    text = reply.strip()
    value = read_json(text.lower() if kinds == {"boolean"} else text)
    if value is not NOTHING and kinds & _kinds_of(value):
        return cast("Json", value)
    raise UnfitError(f"expected {' or '.join(sorted(kinds))}, got {reply[:100]!r}")


def _kinds_of(value: object) -> set[str]:
    if isinstance(value, bool):
        return {"boolean"}
    types = ((int, {"integer", "number"}), (float, {"number"}), (list, {"array"}))
    return next((names for kind, names in types if isinstance(value, kind)), {"object"})


def _kinds(one: Schema, top: Schema) -> frozenset[str]:
    """JSON types that a field takes, null apart."""
    reference = one.get("$ref")
    if isinstance(reference, str):
        definitions = cast("Mapping[str, Schema]", top.get("$defs") or {})
        return _kinds(definitions.get(reference.rpartition("/")[2], {}), top)
    parts = cast("Sequence[Schema]", one.get("anyOf") or one.get("oneOf") or one.get("allOf") or ())
    if parts:
        found = [_kinds(part, top) for part in parts]
        return frozenset().union(*found) - {"null"} if all(found) else frozenset()
    kinds = one.get("type")
    return frozenset([kinds] if isinstance(kinds, str) else cast("Sequence[str]", kinds or ()))


def _said(one: Schema, top: Schema) -> str:
    return " or ".join(sorted(_kinds(one, top))) or "anything"


def _plain(value: Json) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
