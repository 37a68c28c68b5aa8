"""AndroidWorld's JSON actions: `{"action_type": "click", "index": 3}`, or with `x` and `y`.

Keys and values are those of its `json_action.py`; coordinates are pixels of the screen, and an
index is an element's id. `input_text` types in place of what the element holds and, unlike
AndroidWorld's own controller, presses no Enter; `status` says `Done` or `Infeasible`, `open_app`
opens `app:NAME`. Its `swipe` to the left moves the finger to the right, and the other way round, as
its controller does (up and down are the finger's own): here as there. What stands before the last
`Action:` (agents give a reason) is passed over.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, cast

from annotated_types import Ge

from agentrl.core.errors import DataError, did_you_mean
from agentrl.core.registry import register
from agentrl.core.types import Json
from agentrl.text.actions.gui import GuiFormat
from agentrl.text.calls import read_json
from agentrl.text.frames import Pixels
from agentrl.text.gui import (
    Answer,
    Back,
    Click,
    Direction,
    Done,
    DoubleClick,
    Goto,
    GuiAction,
    Home,
    Infeasible,
    Label,
    LongPress,
    MalformedError,
    Point,
    Press,
    Scroll,
    Swipe,
    Target,
    Type,
    Wait,
)

APP = "app:"
MIRRORED: Mapping[str, str] = {"left": "right", "right": "left"}
"""Where the finger goes in a `swipe`, if not where it says."""
MARK = "Action:"
PLACE = ("index", "x", "y")
KEYS: Mapping[str, tuple[str, ...]] = {
    "click": PLACE,
    "double_tap": PLACE,
    "long_press": PLACE,
    "input_text": ("text", "clear_text", *PLACE),
    "keyboard_enter": (),
    "scroll": ("direction", *PLACE),
    "swipe": ("direction", *PLACE),
    "navigate_back": (),
    "navigate_home": (),
    "open_app": ("app_name",),
    "status": ("goal_status",),
    "wait": (),
    "answer": ("text",),
}
"""What each action may hold beside its type."""
PLAIN: Mapping[type[GuiAction], dict[str, Json]] = {
    Back: {"action_type": "navigate_back"},
    Home: {"action_type": "navigate_home"},
    Wait: {"action_type": "wait"},
    Done: {"action_type": "status", "goal_status": "complete"},
}
ON_TARGET: Mapping[type[GuiAction], str] = {
    Click: "click",
    DoubleClick: "double_tap",
    LongPress: "long_press",
}


@register("actions", "android_world")
@dataclass(frozen=True, kw_only=True)
class AndroidWorldJson(GuiFormat):
    """One JSON action of AndroidWorld, on an index or in pixels."""

    width: Annotated[int, Ge(1)]
    """Width of the screen in pixels."""
    height: Annotated[int, Ge(1)]
    """Height of the screen in pixels."""
    system: str = ""
    """A system message that opens every episode; empty for none."""

    example = '{"action_type": "click", "index": 3}'

    @property
    def frame(self) -> Pixels:
        """The screen."""
        return Pixels(width=self.width, height=self.height)

    def said(self, text: str) -> list[GuiAction]:
        """The one action behind the last `Action:`, or that the whole message is."""
        value = read_json(text.rpartition(MARK)[2])
        if not isinstance(value, Mapping):
            raise MalformedError(f"expected JSON such as {self.example}, got {text[:60]!r}")
        name = value.get("action_type")
        if not isinstance(name, str) or name not in KEYS:
            near = did_you_mean(str(name)[:40], KEYS)
            raise MalformedError(f"expected one of {', '.join(KEYS)}, got {name!r:.40}{near}")
        for key in value:
            if key not in KEYS[name] and key != "action_type":
                raise MalformedError(f"{name} takes no {key[:40]!r}")
        return [MAKES[name](value, self._target(value))]

    def spelt(self, action: GuiAction) -> str:
        """The JSON for an action."""
        return json.dumps(self._json(action), ensure_ascii=False)

    def _json(self, action: GuiAction) -> dict[str, Json]:
        if said := PLAIN.get(type(action)):
            return said
        match action:
            case Click(target) | DoubleClick(target) | LongPress(target):
                return {"action_type": ON_TARGET[type(action)], **self._place(target)}
            case Type(text, target):
                return {"action_type": "input_text", "text": text, **self._place(target)}
            case Scroll(direction, target, 500):
                return {"action_type": "scroll", "direction": direction, **self._place(target)}
            case Swipe(direction, target, 500):
                finger = MIRRORED.get(direction, direction)
                return {"action_type": "swipe", "direction": finger, **self._place(target)}
        return _told(action)

    def _place(self, target: Target | None) -> dict[str, Json]:
        if target is None:
            return {}
        if isinstance(target, Point):
            x, y = self.frame.say(target)
            return {"x": x, "y": y}
        if isinstance(target, Label) or not target.isdigit() or str(int(target)) != target:
            raise DataError(f"AndroidWorld's elements are numbers, got {target!r}")
        return {"index": int(target)}

    def _target(self, value: Mapping[str, Json]) -> Target | None:
        index, x, y = (value.get(key) for key in PLACE)
        if index is x is y is None:
            return None
        if type(index) is int and x is y is None and 0 <= index < 10**9:
            return str(index)
        if index is None and type(x) in (int, float) and type(y) in (int, float):
            return self.frame.place(cast("float", x), cast("float", y))
        raise MalformedError(
            f"expected an index, or x and y, got {index!r:.20}, {x!r:.20}, {y!r:.20}"
        )


def _told(action: GuiAction) -> dict[str, Json]:
    match action:
        case Press("Enter", None):
            return {"action_type": "keyboard_enter"}
        case Goto(url) if url.startswith(APP) and url != APP:
            return {"action_type": "open_app", "app_name": url.removeprefix(APP)}
        case Infeasible(""):
            return {"action_type": "status", "goal_status": "infeasible"}
        case Answer(message):
            return {"action_type": "answer", "text": message}
    raise DataError(f"AndroidWorld has no action for {action}")


def _text(value: Mapping[str, Json], key: str) -> str:
    found = value.get(key)
    if not isinstance(found, str):
        raise MalformedError(f"expected {key} as a text, got {found!r:.40}")
    return found


def _typed(value: Mapping[str, Json], target: Target | None) -> GuiAction:
    if value.get("clear_text", True) is not True:
        raise MalformedError("input_text takes the place of what is there: clear_text must be true")
    return Type(_text(value, "text"), target)


def _status(value: Mapping[str, Json]) -> GuiAction:
    status = value.get("goal_status")
    if status not in ("complete", "infeasible"):
        raise MalformedError(f"expected goal_status complete or infeasible, got {status!r:.40}")
    return Done() if status == "complete" else Infeasible()


def _finger(said: Json | None) -> Direction:
    return cast("Direction", MIRRORED.get(said, said) if isinstance(said, str) else said)


def _somewhere(target: Target | None) -> Target:
    if target is None:
        raise MalformedError("expected an index, or x and y, got neither")
    return target


MAKES: Mapping[str, Callable[[Mapping[str, Json], Target | None], GuiAction]] = {
    "click": lambda _, target: Click(_somewhere(target)),
    "double_tap": lambda _, target: DoubleClick(_somewhere(target)),
    "long_press": lambda _, target: LongPress(_somewhere(target)),
    "input_text": _typed,
    "keyboard_enter": lambda *_: Press("Enter"),
    "scroll": lambda value, target: Scroll(cast("Direction", value.get("direction")), target),
    "swipe": lambda value, target: Swipe(_finger(value.get("direction")), target),
    "navigate_back": lambda *_: Back(),
    "navigate_home": lambda *_: Home(),
    "open_app": lambda value, _: Goto(APP + _text(value, "app_name")),
    "status": lambda value, _: _status(value),
    "wait": lambda *_: Wait(),
    "answer": lambda value, _: Answer(_text(value, "text")),
}
