"""What the annotations of a config tree say: sections, parts, ranges, choices and field docstrings.

`core/loading.py` builds trees by these shapes and `core/explaining.py` puts them into words.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from types import NoneType, SimpleNamespace, UnionType
from typing import Annotated, Any, Literal, Union, cast, get_args, get_origin, get_type_hints

from agentrl.core import registry
from agentrl.core.errors import ConfigError
from agentrl.core.types import Json

Default = Callable[[], object]


@dataclass(frozen=True)
class Slot:
    """Marks a field that holds a part: `Annotated[Advantage, Slot("advantage")]`."""

    name: str
    none: str = "none"
    """The word that stands for None where the field allows it."""
    many: str = ""
    """The part that a list of parts with weights makes, where the field allows one."""


@dataclass(frozen=True)
class Named:
    """Marks a string that must be a registered name of `slot`, or one of `also`."""

    slot: str
    also: tuple[str, ...] = ()


@dataclass(frozen=True)
class Secret:
    """Marks a field that is written nowhere: a run's config.yaml does not hold it."""


@dataclass(frozen=True)
class DefaultPart:
    """A default factory that looks the part up when a config is built: importing stays cheap."""

    slot: str
    name: str

    def __call__(self) -> Any:
        """The part, with its own defaults."""
        return registry.find(self.slot, self.name)()


@dataclass(frozen=True)
class Shape:
    """What an annotation asks for: one of `slot`, `section` and `items`, or else a leaf."""

    hint: Any
    optional: bool = False
    slot: Slot | None = None
    section: type | None = None
    items: Shape | None = None


def shape_of(hint: Any) -> Shape:
    """Sort an annotation into a part, a section, a tuple of those, or a leaf."""
    inner, optional = _without_none(hint)
    if get_origin(inner) is Annotated:
        slots = [mark for mark in inner.__metadata__ if isinstance(mark, Slot)]
        if slots:
            return Shape(hint, optional or _without_none(get_args(inner)[0])[1], slot=slots[0])
    if isinstance(inner, type) and dataclasses.is_dataclass(inner):
        return Shape(hint, optional, section=inner)
    args = get_args(inner)
    if get_origin(inner) is tuple and len(args) == 2 and args[1] is Ellipsis:
        item = shape_of(args[0])
        if item.slot or item.section:
            return Shape(hint, optional, items=item)
    return Shape(hint, optional)


def hints_of(cls: type) -> dict[str, Any]:
    """Field name -> annotation, for the fields that a config can set.

    Raises:
        ConfigError: the class is no dataclass, or an annotation cannot be resolved.
    """
    if not dataclasses.is_dataclass(cls):
        raise ConfigError(f"{cls.__qualname__} must be a dataclass to be set from a config")
    hints: dict[str, Any] = {}
    for field in dataclasses.fields(cls):
        if not field.init:
            continue
        owner = next(base for base in cls.__mro__ if field.name in inspect.get_annotations(base))
        annotation = inspect.get_annotations(owner)[field.name]
        try:
            found = resolved({field.name: annotation}, vars(sys.modules[owner.__module__]))
        except NameError as error:
            raise ConfigError(
                f"{cls.__qualname__}.{field.name}: {error}: a setting's type must be importable "
                "at run time, not only under TYPE_CHECKING"
            ) from None
        hints |= found
    return hints


def resolved(annotations: dict[str, Any], names: dict[str, Any] | None = None) -> dict[str, Any]:
    """The annotations with their strings looked up among `names`; marks are kept."""
    holder = SimpleNamespace(__annotations__=annotations)
    return get_type_hints(holder, {"Json": Json} | (names or {}), include_extras=True)


def default_of(field: dataclasses.Field[Any]) -> Default | None:
    """How to make a field's default; None for a required field."""
    if field.default_factory is not dataclasses.MISSING:
        return cast(Default, field.default_factory)
    if field.default is not dataclasses.MISSING:
        return lambda: field.default
    return None


def name_of(slot: str, part: object) -> str:
    """The name under which a part is registered in `slot`."""
    found = registry.slot_of(type(part))
    if found is not None and found[0] == slot:
        return found[1]
    for name in registry.names(slot):
        if registry.find(slot, name) is type(part):
            return name
    raise ConfigError(
        f"{slot}: {type(part).__qualname__} has no name: put @register({slot!r}, ...) above it"
    )


def members(hint: Any) -> frozenset[Any]:
    """The plain types that an annotation mentions, inside unions, containers and `Annotated`."""
    if get_origin(hint) is Literal:
        return frozenset(type(value) for value in get_args(hint))
    if get_origin(hint) is Annotated:
        return members(get_args(hint)[0])
    inside = frozenset[Any]().union(*(members(arg) for arg in get_args(hint)))
    return inside | {get_origin(hint) or hint}


def bare(hint: Any) -> Any:
    """The annotation without `| None` and without marks."""
    inner, _ = _without_none(hint)
    return bare(get_args(inner)[0]) if get_origin(inner) is Annotated else inner


@cache
def docs_of(cls: type) -> dict[str, str]:
    """Field name -> the string literal that stands under it, of a class and its bases."""
    docs: dict[str, str] = {}
    for owner in reversed(cls.__mro__):
        if not dataclasses.is_dataclass(owner):
            continue
        try:
            body = ast.parse(textwrap.dedent(inspect.getsource(owner))).body[0]
        except (OSError, TypeError):  # made at run time: no source
            continue
        statements = body.body if isinstance(body, ast.ClassDef) else []
        for field, below in pairwise(statements):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                text = _text(below)
                if text is not None:
                    docs[field.target.id] = text
    return docs


def summary_of(cls: type) -> str:
    """The first paragraph of a class's own docstring; empty if it has none."""
    text = inspect.cleandoc(cls.__dict__.get("__doc__") or "")
    is_generated = text.startswith(f"{cls.__name__}(")  # by the dataclass decorator
    return "" if is_generated else text.split("\n\n")[0].replace("\n", " ")


def _text(node: ast.stmt) -> str | None:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        value = node.value.value
        return inspect.cleandoc(value) if isinstance(value, str) else None
    return None


def _without_none(hint: Any) -> tuple[Any, bool]:
    if get_origin(hint) not in (Union, UnionType):
        return hint, hint is NoneType
    others = tuple(arg for arg in get_args(hint) if arg is not NoneType)
    optional = len(others) < len(get_args(hint))
    return Union[others], optional  # noqa: UP007 - made at run time
