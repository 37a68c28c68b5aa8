"""BrowserGym's function calls: `click('12')`, `fill('5', 'milk')`, `mouse_click(340, 120)`.

The names and parameters are those of browsergym-core 0.14 (bid, coord, nav, chat and infeas).
Coordinates and scrolled distances are CSS pixels of the viewport. `send_msg_to_user('')` says
`Done`; the milliseconds of `noop` are not kept; modifiers, the middle button, tabs, uploads and
halves of a drag have no counterpart and are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge

from agentrl.core.errors import DataError
from agentrl.core.registry import register
from agentrl.text.actions.gui import GuiFormat
from agentrl.text.frames import Pixels, distance_in, distance_of
from agentrl.text.function_calls import Value, quoted, read_call
from agentrl.text.gui import (
    Answer,
    Back,
    Click,
    Direction,
    Done,
    DoubleClick,
    Drag,
    Goto,
    GuiAction,
    Hover,
    Infeasible,
    Label,
    MalformedError,
    Point,
    Press,
    RightClick,
    Scroll,
    Select,
    Target,
    Type,
    Wait,
)

SIGNATURES: Mapping[str, str] = {
    "click": "bid, button?",
    "dblclick": "bid",
    "hover": "bid",
    "fill": "bid, value",
    "clear": "bid",
    "press": "bid, key_comb",
    "select_option": "bid, options",
    "drag_and_drop": "from_bid, to_bid",
    "scroll": "delta_x, delta_y",
    "scroll_at": "x, y, delta_x, delta_y",
    "mouse_click": "x, y, button?",
    "mouse_dblclick": "x, y",
    "mouse_move": "x, y",
    "mouse_drag_and_drop": "from_x, from_y, to_x, to_y",
    "keyboard_press": "key",
    "keyboard_type": "text",
    "keyboard_insert_text": "text",
    "goto": "url",
    "go_back": "",
    "send_msg_to_user": "text",
    "report_infeasible": "reason",
    "noop": "wait_ms?",
}
BY_TARGET: Mapping[type[GuiAction], tuple[str, str]] = {
    Click: ("click", "mouse_click"),
    RightClick: ("click", "mouse_click"),
    DoubleClick: ("dblclick", "mouse_dblclick"),
    Hover: ("hover", "mouse_move"),
}
"""What acts on an element, and on a point."""


@register("actions", "browsergym")
@dataclass(frozen=True, kw_only=True)
class BrowserGymCalls(GuiFormat):
    """One call of BrowserGym's action set, with bids or with CSS pixels."""

    width: Annotated[int, Ge(1)]
    """Width of the viewport in CSS pixels."""
    height: Annotated[int, Ge(1)]
    """Height of the viewport in CSS pixels."""
    system: str = ""
    """A system message that opens every episode; empty for none."""

    example = "click('12')"

    @property
    def frame(self) -> Pixels:
        """The viewport."""
        return Pixels(width=self.width, height=self.height)

    def said(self, text: str) -> list[GuiAction]:
        """The one call that the whole message is."""
        call = read_call(text)
        given = Given(call.bound(SIGNATURES), self.frame)
        return [MAKES[call.name](given)]

    def spelt(self, action: GuiAction) -> str:
        """The call for an action."""
        kind = type(action)
        name, *values = self._call(action)
        if kind is RightClick:
            values.append("'right'")
        return f"{name}({', '.join(values)})"

    def _call(self, action: GuiAction) -> list[str]:
        match action:
            case Click() | RightClick() | DoubleClick() | Hover():
                on_element, on_point = BY_TARGET[type(action)]
                return [
                    on_point if isinstance(action.target, Point) else on_element,
                    *self._at(action.target),
                ]
            case Drag(Point() as start, Point() as end):
                return ["mouse_drag_and_drop", *self._at(start), *self._at(end)]
            case Drag(str() as start, str() as end):
                return ["drag_and_drop", *self._at(start), *self._at(end)]
            case Scroll(_, None, _):
                return ["scroll", *self._deltas(action)]
            case Scroll(_, Point() as point, _):
                return ["scroll_at", *self._at(point), *self._deltas(action)]
            case Type() | Press() | Select():
                return _keyed(action)
        return _told(action)

    def _at(self, target: Target) -> list[str]:
        if isinstance(target, Point):
            return [str(number) for number in self.frame.say(target)]
        if isinstance(target, Label):
            raise DataError(f"browsergym's elements are ids, got the text {target.text!r}")
        return [quoted(target)]

    def _deltas(self, action: Scroll) -> list[str]:
        is_across = action.direction in ("left", "right")
        pixels = distance_in(self.width if is_across else self.height, action.amount)
        signed = -pixels if action.direction in ("left", "up") else pixels
        return [str(signed), "0"] if is_across else ["0", str(signed)]


@dataclass(frozen=True)
class Given:
    """The values of a call, by parameter."""

    values: Mapping[str, Value]
    frame: Pixels

    def text(self, name: str) -> str:
        """A text. Raises `MalformedError` for anything else."""
        value = self.values[name]
        if isinstance(value, list) and len(value) == 1 and name == "options":
            value = value[0]
        if not isinstance(value, str):
            raise MalformedError(f"expected {name} as a text in quotes, got {value!r:.40}")
        return value

    def number(self, name: str) -> float:
        """A number. Raises `MalformedError` for anything else."""
        value = self.values[name]
        if isinstance(value, str | list):
            raise MalformedError(f"expected {name} as a number, got {value!r:.40}")
        return value

    def point(self, x: str, y: str) -> Point:
        """The canonical point of two coordinates in pixels."""
        return self.frame.place(self.number(x), self.number(y))

    def clicked(self, target: Target) -> GuiAction:
        """A click with the named button."""
        button = self.text("button") if "button" in self.values else "left"
        kinds: Mapping[str, type[Click] | type[RightClick]] = {"left": Click, "right": RightClick}
        if button not in kinds:
            raise MalformedError(f"expected the button left or right, got {button!r:.40}")
        return kinds[button](target)

    def scrolled(self, target: Target | None) -> GuiAction:
        """A scroll along one axis."""
        across, down = self.number("delta_x"), self.number("delta_y")
        if (across == 0) == (down == 0):
            raise MalformedError(f"expected a scroll along one axis, got {across}, {down}")
        direction: Direction = "right" if across > 0 else "left" if across else "down"
        direction = "up" if down < 0 else direction
        size = self.frame.width if across else self.frame.height
        return Scroll(direction, target, distance_of(size, abs(across or down)))

    def message(self) -> GuiAction:
        """What is said to the user; nothing is `Done`."""
        text = self.text("text")
        return Answer(text) if text else Done()


MAKES: Mapping[str, Callable[[Given], GuiAction]] = {
    "click": lambda given: given.clicked(given.text("bid")),
    "dblclick": lambda given: DoubleClick(given.text("bid")),
    "hover": lambda given: Hover(given.text("bid")),
    "fill": lambda given: Type(given.text("value"), given.text("bid")),
    "clear": lambda given: Type("", given.text("bid")),
    "press": lambda given: Press(given.text("key_comb"), given.text("bid")),
    "select_option": lambda given: Select(given.text("bid"), given.text("options")),
    "drag_and_drop": lambda given: Drag(given.text("from_bid"), given.text("to_bid")),
    "scroll": lambda given: given.scrolled(None),
    "scroll_at": lambda given: given.scrolled(given.point("x", "y")),
    "mouse_click": lambda given: given.clicked(given.point("x", "y")),
    "mouse_dblclick": lambda given: DoubleClick(given.point("x", "y")),
    "mouse_move": lambda given: Hover(given.point("x", "y")),
    "mouse_drag_and_drop": lambda given: Drag(
        given.point("from_x", "from_y"), given.point("to_x", "to_y")
    ),
    "keyboard_press": lambda given: Press(given.text("key")),
    "keyboard_type": lambda given: Type(given.text("text")),
    "keyboard_insert_text": lambda given: Type(given.text("text")),
    "goto": lambda given: Goto(given.text("url")),
    "go_back": lambda given: Back(),
    "send_msg_to_user": Given.message,
    "report_infeasible": lambda given: Infeasible(given.text("reason")),
    "noop": lambda given: Wait(),
}


def _keyed(action: Type | Press | Select) -> list[str]:
    match action:
        case Type(text, None):
            return ["keyboard_type", quoted(text)]
        case Press(keys, None):
            return ["keyboard_press", quoted(keys)]
        case Type(text, str() as element):
            return ["fill", quoted(element), quoted(text)]
        case Press(keys, str() as element):
            return ["press", quoted(element), quoted(keys)]
        case Select(str() as element, value):
            return ["select_option", quoted(element), quoted(value)]
    raise _unsayable(action)


def _told(action: GuiAction) -> list[str]:
    match action:
        case Goto(url):
            return ["goto", quoted(url)]
        case Back():
            return ["go_back"]
        case Wait():
            return ["noop"]
        case Answer(message):
            return ["send_msg_to_user", quoted(message)]
        case Done():
            return ["send_msg_to_user", quoted("")]
        case Infeasible(reason):
            return ["report_infeasible", quoted(reason)]
    raise _unsayable(action)


def _unsayable(action: GuiAction) -> DataError:
    return DataError(f"BrowserGym has no call for {action}")
