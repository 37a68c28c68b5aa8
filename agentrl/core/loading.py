"""One YAML file and dotted overrides into one tree of frozen dataclasses, and back.

`core/config.py` declares the tree; this file reads any such tree. A field is a section (a nested
dataclass), a part (`Annotated[Advantage, Slot("advantage")]`, given by its registered name or as
`{name: grpo, eps: 0}`), a tuple of those, or a leaf, which `core/leaves.py` checks. The value of a
part in the tree is the built part. All problems are reported together, one line each.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

from agentrl.core import registry
from agentrl.core.errors import ConfigError, UnknownNameError, did_you_mean
from agentrl.core.leaves import QUOTE, check, got, wants_text
from agentrl.core.shapes import (
    Default,
    Named,
    Secret,
    Shape,
    Slot,
    default_of,
    hints_of,
    name_of,
    shape_of,
)
from agentrl.core.yaml_text import parse_file, parse_value, write

Tree = TypeVar("Tree")
_BAD = object()
_ABSENT = object()


class _Patch(dict[str, object]):
    """Keys set by overrides below what is no mapping in the file: `base` (a name) or absent."""

    def __init__(self, base: object) -> None:
        super().__init__()
        self.base = base


def load(
    cls: type[Tree], source: Path | Mapping[str, object] | None, overrides: Sequence[str] = ()
) -> Tree:
    """Read a tree of dataclasses.

    Args:
        cls: the root of the tree.
        source: a YAML file, a mapping as YAML would hold it, or None for the defaults.
        overrides: `a.b=c`, applied in order; each value is YAML.

    Raises:
        ConfigError: with one line for each problem.
    """
    given = parse_file(source) if isinstance(source, Path) else source or {}
    raw = cast("dict[str, object]", _copy(given))
    reader = _Reader()
    reader.override(raw, overrides)
    built = reader.section(cls, raw, "")
    if reader.problems:
        raise ConfigError("\n".join(dict.fromkeys(reader.problems)))
    return cast(Tree, built)


def to_yaml(config: object) -> str:
    """The resolved tree, defaults included, as YAML that loads to an equal object."""
    return write(_plain_section(config))


def unknown_key(cls: type, name: str, key: str) -> str:
    """What to say of a key `name` that `cls`, which stands at `key` of the tree, does not have."""
    known = hints_of(cls)
    sections = {} if key else {at: shape_of(hint).section for at, hint in known.items()}
    found = [
        f"'{at}.{name}'" for at, below in sections.items() if below and name in hints_of(below)
    ]
    near = f"; did you mean {' or '.join(found)}?" if found else did_you_mean(name, known)
    return f"unknown key{near} (known: {', '.join(known) or 'none'})"


class _NotYaml(NamedTuple):
    """What an override gave, where it is no YAML: fine for a field that wants text."""

    error: str


class _Reader:
    """Walks the tree beside the raw values and collects what is wrong."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.texts: dict[str, str] = {}

    def override(self, raw: dict[str, object], overrides: Sequence[str]) -> None:
        """Set the overrides in `raw`; their text is kept for fields that want text."""
        for override in overrides:
            key, equals, text = override.partition("=")
            if not equals or not key:
                self._problem(override, "an override is written key=value, such as optim.lr=1e-4")
                continue
            lost = [earlier for earlier in self.texts if earlier.startswith(f"{key}.")]
            if lost:
                self._problem(key, f"{override} undoes {lost[0]}, which comes before it: swap them")
            self.texts[key] = text
            try:
                value = parse_value(text)
            except ConfigError as error:
                value = _NotYaml(str(error))
            try:
                _assign(raw, key, value)
            except ConfigError as error:
                self._problem(key, str(error))

    def section(
        self, cls: type, raw: object, key: str, start: Mapping[str, object] | None = None
    ) -> object:
        """An instance of `cls`: each field from `raw`, else from `start`, else its default."""
        if not isinstance(raw, dict):
            hint = f"; {QUOTE}" if isinstance(raw, bool) else ""
            return self._problem(key, f"expected a mapping of keys {got(raw)}{hint}")
        hints = hints_of(cls)
        self._check_keys(cls, raw, key)
        values: dict[str, object] = {}
        fields = [field for field in dataclasses.fields(cls) if field.name in hints]
        for field in sorted(fields, key=lambda field: field.name not in raw):
            name, default = field.name, default_of(field)
            below = f"{key}.{name}" if key else name
            if name in raw:
                values[name] = self._read(shape_of(hints[name]), raw[name], below, default)
            elif start is not None:
                values[name] = start[name]
            elif default is None:
                values[name] = self._problem(below, "is required and missing")
            else:  # a default part may import much: not for a config that is refused anyway
                values[name] = _BAD if self.problems else self._attempt(default, below)
        if any(value is _BAD for value in values.values()):
            return _BAD
        return self._attempt(lambda: cls(**values), key, hints)

    def _read(self, shape: Shape, raw: object, key: str, default: Default | None) -> object:
        is_leaf = not (shape.items or shape.slot or shape.section)
        if isinstance(raw, _NotYaml) and not (is_leaf and wants_text(shape.hint, raw)):
            return self._problem(key, raw.error)
        if shape.items is not None:
            return self._items(shape.items, raw, key)
        if shape.slot is not None:
            return self._part(shape, shape.slot, raw, key, default)
        if shape.section is None:
            return self._leaf(shape, raw, key, default)
        if shape.optional and (raw is None or raw == "none"):
            return None
        return self.section(shape.section, raw, key)

    def _items(self, item: Shape, raw: object, key: str) -> object:
        if raw is None or raw == "none":
            return ()
        if not isinstance(raw, list):
            return self._problem(key, f"expected a list such as [a, b] {got(raw)}")
        read = [self._read(item, one, f"{key}.{i}", None) for i, one in enumerate(raw)]
        return _BAD if any(one is _BAD for one in read) else tuple(read)

    def _part(
        self, shape: Shape, slot: Slot, raw: object, key: str, default: Default | None
    ) -> object:
        if isinstance(raw, list) and slot.many:
            raw = {"name": slot.many, "parts": [_weighted(slot.name, one) for one in raw]}
        settings = dict(raw) if isinstance(raw, dict) else {}
        base = raw.base if isinstance(raw, _Patch) else _ABSENT
        name = settings.pop("name", base) if isinstance(raw, dict) else raw
        if name is _ABSENT and default is not None:
            part = self._attempt(default, key)
            if part is _BAD:
                return _BAD
            if part is not None:
                start = {field: getattr(part, field) for field in hints_of(type(part))}
                return self.section(type(part), settings, key, start)
        if name is None or name == slot.none or name is _ABSENT:
            if shape.optional and not settings:
                return None
            return self._problem(key, f"needs the name of a part: {key}=NAME", slot)
        if not isinstance(name, str):
            hint = f"; {QUOTE}" if isinstance(name, bool) else ""
            return self._problem(key, f"expected the name of a part {got(name)}{hint}", slot)
        try:
            found = registry.find(slot.name, name)
        except UnknownNameError:
            return self._unknown(key, slot.name, name, (slot.none,) if shape.optional else ())
        return self.section(found, settings, key)

    def _leaf(self, shape: Shape, raw: object, key: str, default: Default | None) -> object:
        if isinstance(raw, _Patch) and raw.base is _ABSENT and default is not None:
            raw.base = default()
        try:
            raw = _resolve(raw)
        except ConfigError as error:
            return self._problem(key, str(error))
        if shape.optional and (raw is None or raw == "none"):
            return None
        if key in self.texts and wants_text(shape.hint, raw):
            raw = self.texts[key]
        value, problems = check(shape.hint, raw)
        for where, words in problems:
            self._problem(f"{key}{where}", words)
        if problems:
            return _BAD
        for mark in getattr(shape.hint, "__metadata__", ()):
            if isinstance(mark, Named) and value not in mark.also:
                try:
                    registry.find(mark.slot, str(value))
                except UnknownNameError:
                    return self._unknown(key, mark.slot, str(value), mark.also)
        return value

    def _check_keys(self, cls: type, raw: Mapping[object, object], key: str) -> None:
        for name in raw:
            below = f"{key}.{name}" if key else str(name)
            if not isinstance(name, str):
                self._problem(below, f"a key must be text; {QUOTE}")
            elif name not in hints_of(cls):
                self._problem(below, unknown_key(cls, name, key))

    def _attempt(
        self, make: Callable[[], object], key: str, fields: Mapping[str, Any] | None = None
    ) -> object:
        """`make()`, or a problem at `key` (at one of its `fields` if the error begins with it)."""
        try:
            return make()
        except ValueError as error:
            first = str(error).partition(":")[0]
            if key and (first == key or first.startswith(f"{key}.")):
                return self._problem("", str(error))
            if key and first.partition(".")[0] in (fields or {}):
                return self._problem("", f"{key}.{error}")
            return self._problem(key, str(error))

    def _unknown(self, key: str, slot: str, name: str, also: tuple[str, ...]) -> object:
        known = [*also, *registry.names(slot)]
        words = f"no {slot} is called {name!r}{did_you_mean(name, known)}"
        return self._problem(key, f"{words} (known: {', '.join(known) or 'none'})")

    def _problem(self, key: str, words: str, slot: Slot | None = None) -> object:
        known = f" (known: {', '.join(registry.names(slot.name)) or 'none'})" if slot else ""
        self.problems.append(f"{key}: {words}{known}" if key else f"{words}{known}")
        return _BAD


def _weighted(slot: str, raw: object) -> dict[str, object]:
    """One of a list of parts: its settings, and its weight beside them."""
    if not isinstance(raw, dict) or "weight" not in raw:
        return {slot: raw}
    return {slot: {k: v for k, v in raw.items() if k != "weight"}, "weight": raw["weight"]}


def _copy(raw: object) -> object:
    if isinstance(raw, Mapping):
        return {key: _copy(value) for key, value in raw.items()}
    return [_copy(value) for value in raw] if isinstance(raw, list | tuple) else raw


def _assign(raw: dict[str, object], key: str, value: object) -> None:
    node = raw
    *path, last = key.split(".")
    for depth, name in enumerate(path, start=1):
        below = node.get(name, _ABSENT)
        if isinstance(below, list):
            raise ConfigError(f"{'.'.join(path[:depth])} is a list: set all of it")
        if not isinstance(below, dict):
            below = node[name] = _Patch(below)
        node = below
    node[last] = value


def _resolve(raw: object) -> object:
    """Patches laid over what they patch.

    Raises:
        ConfigError: what they patch has no keys.
    """
    if isinstance(raw, _Patch):
        base = {} if raw.base is _ABSENT or raw.base is None else raw.base
        if not isinstance(base, Mapping):
            raise ConfigError(f"is {base!r}, which has no key {next(iter(raw))!r}")
        for name, value in raw.items():
            if isinstance(value, _Patch) and value.base is _ABSENT:
                value.base = base.get(name, _ABSENT)
        return {**base, **{name: _resolve(value) for name, value in raw.items()}}
    if isinstance(raw, dict):
        return {name: _resolve(value) for name, value in raw.items()}
    return raw


def _plain_section(config: object) -> dict[str, object]:
    return {
        name: _plain(shape_of(hint), getattr(config, name))
        for name, hint in hints_of(type(config)).items()
        if not any(isinstance(mark, Secret) for mark in getattr(hint, "__metadata__", ()))
    }


def _plain(shape: Shape, value: object) -> object:
    if shape.items is not None:
        return [_plain(shape.items, one) for one in cast("tuple[object, ...]", value)]
    if shape.slot is not None:
        if value is None:
            return shape.slot.none
        settings = _plain_section(value)
        name = name_of(shape.slot.name, value)
        return {"name": name, **settings} if settings else name
    if shape.section is not None:
        return "none" if value is None else _plain_section(value)
    return _plain_leaf(value)


def _plain_leaf(value: object) -> object:
    if isinstance(value, Enum):
        return _plain_leaf(value.value)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _plain_leaf(one) for key, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain_leaf(one) for one in value]
    return value
