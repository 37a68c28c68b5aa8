"""One value of a config checked against its annotation: pydantic's rules, our words.

pydantic is imported when the first leaf is checked, so that `import agentrl` stays quick.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache, reduce
from operator import or_
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

from agentrl.core.errors import did_you_mean
from agentrl.core.shapes import bare, members, resolved
from agentrl.core.types import Json

if TYPE_CHECKING:
    from pydantic import TypeAdapter

QUOTE = "YAML reads yes, no, on and off as booleans: put it in quotes"
_MANY = (list, tuple, set, frozenset, Mapping)
Problems = list[tuple[str, str]]
"""What is wrong: (where below the leaf, such as `.0`; in which words)."""


def check(hint: Any, raw: object) -> tuple[object, Problems]:
    """The value that `raw` stands for, and what is wrong with it (then the value means nothing)."""
    refusal = _refusal(hint, raw)
    if refusal:
        return None, [("", refusal)]
    from pydantic import ValidationError

    try:
        value = _adapter(hint).validate_python(raw)
    except ValidationError as error:
        return None, _worded(hint, error)
    return (value.expanduser() if isinstance(value, Path) else value), []


def got(raw: object) -> str:
    """`(got 3)`, cut where it is long."""
    text = "none" if raw is None else repr(raw)
    return f"(got {text if len(text) <= 80 else text[:77] + '...'})"


def wants_text(hint: Any, raw: object) -> bool:
    """Whether words on the command line are meant as text here, whatever YAML made of them."""
    accepted = members(hint)
    holds_many = any(isinstance(one, type) and issubclass(one, _MANY) for one in accepted)
    is_plain = raw is None or isinstance(raw, str | bool | int | float)
    if not accepted & {str, Path} or (holds_many and not is_plain):
        return False
    return type(raw) not in {str, *accepted}


def _refusal(hint: Any, raw: object) -> str:
    """Where pydantic would convert silently or be terse."""
    accepted, inner = members(hint), bare(hint)
    held = raw if isinstance(raw, list) else [raw]
    if inner is None or inner is NoneType:
        return f"only none can stand here {got(raw)}"
    if any(isinstance(one, bool) for one in held) and bool not in accepted:
        if accepted & {str, Path}:
            return f"input should be text {got(raw)}; {QUOTE}"
        return f"input should be a number, not a boolean {got(raw)}"
    if any(isinstance(one, float) and math.isnan(one) for one in held):
        return f"input should be a number {got(raw)}"
    if get_origin(inner) is Literal and raw not in get_args(inner):
        choices = [str(choice) for choice in get_args(inner)]
        near = did_you_mean(str(raw), choices)
        return f"{raw!r} is not a choice{near} (known: {', '.join(choices)})"
    if isinstance(raw, dict) and not any(_is_mapping(one) for one in accepted):
        return f"takes one value and has no keys of its own {got(raw)}"
    return ""


def _worded(hint: Any, error: Any) -> Problems:
    """One line for each place; the branches of a union are joined by "or"."""
    found: dict[tuple[str, str], list[str]] = {}
    for detail in error.errors(include_url=False, include_context=False):
        where = "".join(f".{part}" for part in detail["loc"] if isinstance(part, int))
        raw = detail["input"]
        is_number = isinstance(raw, int | float) and str in members(hint)
        tail = f"{got(raw)}{'; put it in quotes' if is_number else ''}"
        words = detail["msg"][:1].lower() + detail["msg"][1:]
        found.setdefault((where, tail), []).append(words)
    return [
        (where, f"{' or '.join(dict.fromkeys(words))} {tail}")
        for (where, tail), words in found.items()
    ]


def _is_mapping(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Mapping)


@cache
def _adapter(hint: Any) -> TypeAdapter[object]:
    from pydantic import ConfigDict, TypeAdapter

    return TypeAdapter(_with_json(hint), config=ConfigDict(arbitrary_types_allowed=True))


def _with_json(hint: Any) -> Any:
    """The annotation with pydantic's recursive JSON type in place of ours, which has no name."""
    from pydantic import JsonValue

    if hint in (Json, resolved({"json": Json})["json"]):
        return JsonValue
    origin, args = get_origin(hint), get_args(hint)
    if not args or origin is Literal:
        return hint
    if origin is Annotated:
        return Annotated[(_with_json(args[0]), *args[1:])]
    inside = tuple(arg if arg is Ellipsis else _with_json(arg) for arg in args)
    return reduce(or_, inside) if origin in (Union, UnionType) else origin[inside]
