"""A config tree in words: what a key means, which parts a slot has. Read from the code itself."""

from __future__ import annotations

import dataclasses
import json
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from agentrl.core import registry
from agentrl.core.errors import ConfigError, did_you_mean
from agentrl.core.loading import unknown_key
from agentrl.core.shapes import (
    DefaultPart,
    Named,
    Slot,
    default_of,
    docs_of,
    hints_of,
    name_of,
    shape_of,
    summary_of,
)

_RANGES = {
    "gt": "above",
    "ge": "at least",
    "lt": "below",
    "le": "at most",
    "min_length": "not empty",
}


class Entry(NamedTuple):
    """A name and what is said of it."""

    name: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """One key of a config."""

    key: str
    type: str
    """In words, with its range."""
    default: str
    """As YAML would write it; empty for what is required, and for a section that is never none."""
    doc: str
    parts: tuple[Entry, ...] = ()
    """For a slot: the known names and their summaries."""
    keys: tuple[Entry, ...] = ()
    """For a section or a part: what can be set below, with full keys."""

    def lines(self, width: int = 100) -> list[str]:
        """For a terminal of `width` columns."""
        head = f"{self.key}: {self.type}" + (f" (default: {self.default})" if self.default else "")
        lines = [head, *(f"  {line}" for line in self.doc.splitlines())]
        for title, entries in (("parts", self.parts), ("keys", self.keys)):
            if entries:
                lines += [f"  {title}:", *(f"    {line}" for line in table(entries, width - 4))]
        return lines


@dataclass(frozen=True, kw_only=True)
class Described:
    """One registered part."""

    slot: str
    name: str
    summary: str
    settings: tuple[Entry, ...]
    """Each field and its default; an empty text for a required one."""


def explain(cls: type, key: str) -> Explanation:
    """What a dotted key of the tree `cls` means.

    Below a slot, `advantage.eps` is a setting (of the default part, or else of whichever part has
    it) and `advantage.rloo` is a part.

    Raises:
        ConfigError: there is no such key; the message names the nearest.
    """
    return _explain(cls, key.split("."), "")


def overview(cls: type) -> tuple[Entry, ...]:
    """Every key of the root with its docstring; imports no part."""
    docs = docs_of(cls)
    return tuple(Entry(name, " ".join(docs.get(name, "").split())) for name in hints_of(cls))


def describe(slot: str) -> list[Described]:
    """Every part of a slot, by name.

    Raises:
        ConfigError: no such slot.
    """
    if slot not in registry.FOLDERS:
        near, known = did_you_mean(slot, registry.FOLDERS), ", ".join(registry.FOLDERS)
        raise ConfigError(f"no slot is called {slot!r}{near} (known: {known})")
    return [_described(slot, name, registry.find(slot, name)) for name in registry.names(slot)]


def table(entries: tuple[Entry, ...], width: int = 100) -> list[str]:
    """Names in one column, texts in another, wrapped where both have room in `width`."""
    names = max((len(entry.name) for entry in entries), default=0)
    lines = []
    for name, text in entries:
        first, *more = textwrap.wrap(text, max(40, width - names - 2)) or [""]
        lines.append(f"{name:<{names}}  {first}".rstrip())
        lines += [f"{'':<{names}}  {line}" for line in more]
    return lines


def _explain(cls: type, path: list[str], above: str) -> Explanation:
    name, *rest = path
    key = _join(above, name)
    if name not in hints_of(cls):
        raise ConfigError(f"{key}: {unknown_key(cls, name, above)}")
    if not rest:
        return _field(cls, name, key)
    shape = shape_of(hints_of(cls)[name])
    shape = shape.items or shape
    if shape.section is not None:
        return _explain(shape.section, rest, key)
    if shape.slot is not None:
        return _below_slot(shape.slot, _default(cls, name), rest, key)
    raise ConfigError(f"{_join(key, rest[0])}: unknown key: {key} is {_words(shape.hint)}")


def _below_slot(slot: Slot, default: str, path: list[str], key: str) -> Explanation:
    names = sorted(registry.names(slot.name), key=lambda name: name != default)
    parts = {name: registry.find(slot.name, name) for name in names}
    owners = [name for name, part in parts.items() if path[0] in hints_of(part)]
    if owners:
        found = _explain(parts[owners[0]], path, key)
        return replace(found, doc=f"{found.doc}\nA setting of {', '.join(owners)}.".strip())
    if path[0] in parts and len(path) > 1:
        return _explain(parts[path[0]], path[1:], _join(key, path[0]))
    if path[0] in parts:
        part = parts[path[0]]
        return Explanation(
            key=_join(key, path[0]),
            type=f"{slot.name} part",
            default="",
            doc=summary_of(part),
            keys=_keys(part, key),
        )
    known = [*dict.fromkeys(field for part in parts.values() for field in hints_of(part)), *parts]
    near = did_you_mean(path[0], known)
    raise ConfigError(f"{_join(key, path[0])}: unknown key{near} (known: {', '.join(known)})")


def _field(cls: type, name: str, key: str) -> Explanation:
    shape = shape_of(hints_of(cls)[name])
    one = shape.items or shape
    named = [
        mark.slot for mark in getattr(shape.hint, "__metadata__", ()) if isinstance(mark, Named)
    ]
    slots = [one.slot.name] if one.slot else named
    known = [part for slot in slots for part in describe(slot)]
    return Explanation(
        key=key,
        type=_words(shape.hint),
        default=_default(cls, name),
        doc=docs_of(cls).get(name, ""),
        parts=tuple(Entry(part.name, part.summary) for part in known),
        keys=_keys(one.section, key) if one.section else (),
    )


def _keys(cls: type, key: str) -> tuple[Entry, ...]:
    return tuple(
        Entry(f"{_join(key, name)}={_default(cls, name)}", text) for name, text in overview(cls)
    )


def _described(slot: str, name: str, part: type) -> Described:
    fields = hints_of(part) if dataclasses.is_dataclass(part) else ()  # a renderer has no settings
    settings = tuple(Entry(field, _default(part, field)) for field in fields)
    return Described(slot=slot, name=name, summary=summary_of(part), settings=settings)


def _default(cls: type, name: str) -> str:
    """The default of a field as YAML would write it; empty if it is required or a whole section."""
    shape = shape_of(hints_of(cls)[name])
    field = next(field for field in dataclasses.fields(cls) if field.name == name)
    if isinstance(field.default_factory, DefaultPart):
        return field.default_factory.name
    make = default_of(field)
    if make is None:
        return ""
    value = make()
    if value is None:
        return shape.slot.none if shape.slot else "none"
    if shape.items and shape.items.slot and isinstance(value, tuple):
        return f"[{', '.join(name_of(shape.items.slot.name, one) for one in value)}]"
    if shape.slot:
        return name_of(shape.slot.name, value)
    return "" if shape.section else _plain(value)


def _plain(value: object) -> str:
    if isinstance(value, str | Path | Enum):
        text = str(value)
        return text if text and text.isprintable() else json.dumps(text)
    if isinstance(value, Mapping):
        return json.dumps(dict(value), default=str)
    if isinstance(value, tuple | list | frozenset | set):
        return f"[{', '.join(_plain(one) for one in value)}]"
    return {"True": "true", "False": "false", "None": "none"}.get(repr(value), repr(value))


def _words(hint: Any) -> str:
    """An annotation as people would say it, with its range."""
    shape, origin, args = shape_of(hint), get_origin(hint), get_args(hint)
    if shape.slot or shape.section:
        what = "part" if shape.slot else "section"
        return f"{what} or {shape.slot.none if shape.slot else 'none'}" if shape.optional else what
    if shape.items:
        return f"list of {'parts' if shape.items.slot else 'sections'}"
    if origin is Annotated:
        return " ".join([_words(args[0]), *_range(hint.__metadata__)])
    if origin is Literal:
        return " | ".join(str(choice) for choice in args)
    if origin in (Union, UnionType):
        return " | ".join(_words(arg) for arg in args)
    if origin is tuple:
        return f"[{', '.join('...' if arg is Ellipsis else _words(arg) for arg in args)}]"
    if hint is NoneType:
        return "none"
    plain = origin or hint
    if isinstance(plain, type) and issubclass(plain, Mapping):
        return "mapping"
    return {str: "text", Path: "path"}.get(plain, getattr(plain, "__name__", str(plain)))


def _range(marks: tuple[object, ...]) -> list[str]:
    found = []
    for mark in marks:
        for name, words in _RANGES.items():
            if hasattr(mark, name):
                limit = getattr(mark, name)
                found.append(f"({words})" if name == "min_length" else f"({words} {limit:g})")
    return found


def _join(above: str, name: str) -> str:
    return f"{above}.{name}" if above else name
