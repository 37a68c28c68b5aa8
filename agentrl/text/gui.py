"""Typed actions on a screen, and the canonical JSON in which `Env.step` gets them.

A target is an element (an id that the observation gave it, such as `12`, or a `Label`: what it
reads), or a `Point` in whole thousandths of the screenshot's width and height, so that 500,500 is
the middle of every screen:

    {"action":"click","target":"12"}
    {"action":"click","target":{"text":"Ok"}}
    {"action":"type","target":[500,300],"text":"milk"}

Keys are sorted, fields that hold their default are left out; two messages that say the same action
give the same string. An action that cannot be is refused when it is made: whoever holds one may
rely on it. How models spell actions stands in `text/actions/` (`gui.py` and the dialects), how
their coordinates become thousandths in `text/frames.py`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Literal, NamedTuple, cast, get_args

from agentrl.core.errors import DataError, did_you_mean
from agentrl.core.types import Json
from agentrl.text.calls import NOTHING, read_json

FULL = 1000
"""The far edge of the screen, right or bottom, in canonical coordinates."""
FARTHEST = 10 * FULL
"""How far one may scroll or swipe at once."""
LONGEST = 2_000
"""Characters that a text may have."""
ELEMENT = re.compile(r"[A-Za-z]{0,8}[0-9]{1,9}", re.ASCII)
"""What an element may be called."""
Direction = Literal["up", "down", "left", "right"]
MODIFIERS = ("Control", "Shift", "Alt", "Meta")
NAMED_KEYS = (
    *("Enter", "Tab", "Escape", "Backspace", "Delete", "Insert", "Space", "Home", "End"),
    *("PageUp", "PageDown", "ArrowUp", "ArrowDown", "ArrowLeft", "ArrowRight"),
    *(f"F{number}" for number in range(1, 13)),
)
"""Keys that have a name; a letter or a digit is its own name."""


class MalformedError(DataError):
    """A message or a JSON text that says no action; the error's text is the reason."""


class Point(NamedTuple):
    """A place in thousandths (0 to 1000) of the screen's width and height."""

    x: int
    y: int


class Label(NamedTuple):
    """An element by its text or its name, whole and exact; which of several it is, the environment
    says."""

    text: str


Target = str | Point | Label
"""An element's id, a place, or an element's text."""


class GuiAction:
    """One action on a screen. Raises `MalformedError` if made with values that cannot be."""

    __slots__ = ()

    def __post_init__(self) -> None:
        for name in names(type(self)):
            value = getattr(self, name)
            if value is None and name in optional(type(self)):
                continue
            FIELDS[name](value)


@dataclass(frozen=True, slots=True)
class Click(GuiAction):
    """Click with the main button, or tap."""

    target: Target


@dataclass(frozen=True, slots=True)
class DoubleClick(GuiAction):
    """Two clicks (or taps) without a pause."""

    target: Target


@dataclass(frozen=True, slots=True)
class RightClick(GuiAction):
    """Click with the other button."""

    target: Target


@dataclass(frozen=True, slots=True)
class LongPress(GuiAction):
    """Hold a finger (or the main button) down for a second."""

    target: Target


@dataclass(frozen=True, slots=True)
class Hover(GuiAction):
    """Move the pointer there and let it rest."""

    target: Target


@dataclass(frozen=True, slots=True)
class Drag(GuiAction):
    """Hold the button (or a finger) down at `start` and let it go at `end`."""

    start: Target
    end: Target


@dataclass(frozen=True, slots=True)
class Type(GuiAction):
    """Type a text, in which a new line is Enter: in place of what `target` holds, or, without one,
    where the focus is."""

    text: str
    target: Target | None = None


@dataclass(frozen=True, slots=True)
class Press(GuiAction):
    """Press a key or a chord (`Enter`, `Control+a`), with `target` in focus if there is one."""

    keys: str
    target: Target | None = None


@dataclass(frozen=True, slots=True)
class Scroll(GuiAction):
    """Look further in a direction (`down` shows what is below) by thousandths of the screen's
    height or width."""

    direction: Direction
    target: Target | None = None
    amount: int = 500


@dataclass(frozen=True, slots=True)
class Swipe(GuiAction):
    """Move a finger in a direction by thousandths of the screen's height or width, as far as the
    screen goes, from the target's centre or the screen's (`up` shows what is below)."""

    direction: Direction
    target: Target | None = None
    amount: int = 500


@dataclass(frozen=True, slots=True)
class Select(GuiAction):
    """Choose the option that reads `value` from a list of options."""

    target: Target
    value: str


@dataclass(frozen=True, slots=True)
class Goto(GuiAction):
    """Open an address; `app:NAME` opens an application."""

    url: str


@dataclass(frozen=True, slots=True)
class Back(GuiAction):
    """Go back."""


@dataclass(frozen=True, slots=True)
class Home(GuiAction):
    """Go to the home screen."""


@dataclass(frozen=True, slots=True)
class Wait(GuiAction):
    """Let a second pass."""


@dataclass(frozen=True, slots=True)
class Answer(GuiAction):
    """Say the answer to the task, which ends it."""

    message: str


@dataclass(frozen=True, slots=True)
class Done(GuiAction):
    """Say that the task is done."""


@dataclass(frozen=True, slots=True)
class Infeasible(GuiAction):
    """Say that the task cannot be done, and perhaps why."""

    reason: str = ""


KINDS: Mapping[str, type[GuiAction]] = {
    "click": Click,
    "double_click": DoubleClick,
    "right_click": RightClick,
    "long_press": LongPress,
    "hover": Hover,
    "drag": Drag,
    "type": Type,
    "press": Press,
    "scroll": Scroll,
    "swipe": Swipe,
    "select": Select,
    "goto": Goto,
    "back": Back,
    "home": Home,
    "wait": Wait,
    "answer": Answer,
    "done": Done,
    "infeasible": Infeasible,
}
"""Canonical names of the actions."""
NAMES = {kind: name for name, kind in KINDS.items()}


def as_target(value: object) -> Target:
    """A target from its JSON. Raises `MalformedError`."""
    if isinstance(value, Label):
        return Label(_filled(value.text))
    if isinstance(value, Mapping) and value.keys() == {"text"}:
        return Label(_filled(value["text"]))
    if isinstance(value, str):
        if not ELEMENT.fullmatch(value):
            raise MalformedError(f"expected an element such as 12, got {value[:40]!r}")
        return value
    if isinstance(value, list | tuple) and len(value) == 2:
        return Point(_whole(value[0], 0, FULL), _whole(value[1], 0, FULL))
    raise MalformedError(
        "expected an element or a point such as 12, [500, 300] or "
        f'{{"text": "Ok"}}, got {value!r:.40}'
    )


def as_keys(value: object) -> str:
    """A key or a chord, each key by its own name. Raises `MalformedError`."""
    *held, last = value.split("+") if isinstance(value, str) else [""]
    for key in held:
        if key not in MODIFIERS or held.count(key) > 1:
            raise MalformedError(f"expected each of {', '.join(MODIFIERS)} once, got {value!r:.40}")
    if not re.fullmatch(r"[A-Za-z0-9]", last, re.ASCII) and last not in NAMED_KEYS:
        near = did_you_mean(last, NAMED_KEYS)
        raise MalformedError(f"expected a key such as Enter or a, got {value!r:.40}{near}")
    return cast("str", value)


def as_text(value: object) -> str:
    """A text that can be typed. Raises `MalformedError`."""
    if not isinstance(value, str):
        raise MalformedError(f"expected a text, got {value!r:.40}")
    if len(value) > LONGEST:
        raise MalformedError(f"expected at most {LONGEST} characters, got {len(value)}")
    if re.search(r"[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]", value):
        raise MalformedError("expected a text without control characters")
    return value


def _filled(value: object) -> str:
    text = as_text(value)
    return text if text.strip() else _refuse("expected some text, got none")


def _url(value: object) -> str:
    text = as_text(value)
    is_url = re.fullmatch(r"[^\s\"]+", text)
    return text if is_url else _refuse(f"expected an address without spaces, got {text[:40]!r}")


def _direction(value: object) -> Direction:
    known = get_args(Direction)
    if value not in known:
        near = did_you_mean(str(value)[:40], known)
        raise MalformedError(f"expected one of {', '.join(known)}, got {value!r:.40}{near}")
    return cast("Direction", value)


def _whole(value: object, low: int, high: int) -> int:
    if type(value) is not int or not low <= value <= high:
        raise MalformedError(f"expected a whole number from {low} to {high}, got {value!r:.40}")
    return value


def _refuse(reason: str) -> str:
    raise MalformedError(reason)


FIELDS: Mapping[str, Callable[[object], object]] = {
    "target": as_target,
    "start": as_target,
    "end": as_target,
    "text": as_text,
    "message": _filled,
    "reason": as_text,
    "value": as_text,
    "keys": as_keys,
    "url": _url,
    "direction": _direction,
    "amount": lambda value: _whole(value, 1, FARTHEST),
}
"""What reads each field from JSON; a field means the same in every action."""


def names(kind: type[GuiAction]) -> tuple[str, ...]:
    """The fields of a kind of action, in order."""
    return tuple(field.name for field in fields(kind))  # type: ignore[arg-type]


def optional(kind: type[GuiAction]) -> Mapping[str, object]:
    """The fields that may be left out, and what they hold then."""
    known = fields(kind)  # type: ignore[arg-type]
    return {field.name: field.default for field in known if field.default is not MISSING}


def canonical(action: GuiAction) -> str:
    """The JSON of an action."""
    kind = type(action)
    defaults = optional(kind)
    given = {name: getattr(action, name) for name in names(kind)}
    said = {
        k: v._asdict() if isinstance(v, Label) else v
        for k, v in given.items()
        if k not in defaults or v != defaults[k]
    }
    return json.dumps(
        {"action": NAMES[kind], **said}, ensure_ascii=False, sort_keys=True, separators=(",", ":")
    )


def read(text: str) -> GuiAction:
    """The action that a JSON text says. Raises `MalformedError`, which says why it says none."""
    value = read_json(text)
    if value is NOTHING or not isinstance(value, Mapping):
        raise MalformedError(
            f'expected JSON such as {{"action":"click","target":"12"}}, got {text[:80]!r}'
        )
    return from_json(value)


def from_json(value: Mapping[str, Json]) -> GuiAction:
    """The action that a JSON object says. Raises `MalformedError`."""
    name = value.get("action")
    kind = KINDS.get(name) if isinstance(name, str) else None
    if kind is None:
        raise MalformedError(
            f"expected one of the actions {', '.join(KINDS)}, got {name!r:.40}"
            f"{did_you_mean(str(name)[:40], KINDS)}"
        )
    known = names(kind)
    for key in value:
        if key not in known and key != "action":
            raise MalformedError(f"{name} takes {', '.join(known) or 'nothing'}, got {key[:40]!r}")
    for key in known:
        if key not in value and key not in optional(kind):
            raise MalformedError(f"{name} needs {key}")
    return kind(**{key: FIELDS[key](value[key]) for key in known if key in value})
