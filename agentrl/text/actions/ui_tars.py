r"""UI-TARS' replies: `Thought: ...` and `Action: click(start_box='(340,120)')`.

Version 1 says coordinates from 0 to 1000, version 1.5 pixels of the screenshot as Qwen2.5-VL's
rules resize it. All its ways to write a place are read: `(x,y)`, the same between `<|box_start|>`
and `<|box_end|>`, `<point>x y</point>`, and a box `[x1,y1,x2,y2]`, which means its middle. A text
to type uses escapes (`\n` is Enter). Of what is said before the last `Action:` nothing is kept, nor
the `time` of a long press; `finished(content='')` says `Done`, `call_user()` says `Infeasible`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal, cast

from annotated_types import Ge

from agentrl.core.errors import DataError
from agentrl.core.registry import register
from agentrl.text.actions.gui import GuiFormat
from agentrl.text.frames import THOUSANDTHS, Pixels, resized
from agentrl.text.function_calls import quoted, read_call
from agentrl.text.gui import (
    MODIFIERS,
    NAMED_KEYS,
    Answer,
    Back,
    Click,
    Direction,
    Done,
    DoubleClick,
    Drag,
    Goto,
    GuiAction,
    Home,
    Infeasible,
    LongPress,
    MalformedError,
    Point,
    Press,
    RightClick,
    Scroll,
    Type,
    Wait,
)

APP = "app:"
MARK = "Action:"
SIGNATURES: Mapping[str, str] = {
    "click": "start_box",
    "left_double": "start_box",
    "right_single": "start_box",
    "long_press": "start_box, time?",
    "drag": "start_box, end_box",
    "scroll": "start_box?, direction",
    "type": "content",
    "hotkey": "key",
    "open_app": "app_name",
    "press_home": "",
    "press_back": "",
    "wait": "",
    "finished": "content?",
    "call_user": "",
}
ALIASES = {"point": "start_box", "start_point": "start_box", "end_point": "end_box"}
TAG = re.compile(r"<\|box_(?:start|end)\|>|</?point>|</?bbox>|[()\[\]]")
NUMBER = re.compile(r"[0-9]{1,6}(?:\.[0-9]{0,6})?", re.ASCII)
ON_POINT: Mapping[type[GuiAction], str] = {
    Click: "click",
    DoubleClick: "left_double",
    RightClick: "right_single",
    LongPress: "long_press",
}
PLAIN: Mapping[type[GuiAction], str] = {
    Home: "press_home",
    Back: "press_back",
    Wait: "wait",
    Done: "finished",
}
SHORT = {
    "Control": "ctrl",
    "Escape": "esc",
    "ArrowUp": "up",
    "ArrowDown": "down",
    "ArrowLeft": "left",
    "ArrowRight": "right",
}
KEYS = {
    **{name.lower(): name for name in (*NAMED_KEYS, *MODIFIERS)},
    **{short: name for name, short in SHORT.items()},
    **{"cmd": "Meta", "win": "Meta", "return": "Enter"},
}
"""Keys as UI-TARS (and pyautogui, which performs for it) calls them."""


@register("actions", "ui_tars")
@dataclass(frozen=True, kw_only=True)
class UiTarsReply(GuiFormat):
    """A thought and one call of UI-TARS' action space, computer or phone."""

    width: Annotated[int, Ge(1)]
    """Width of the screenshot in pixels, before it is resized."""
    height: Annotated[int, Ge(1)]
    """Height of the screenshot in pixels, before it is resized."""
    version: Literal["1", "1.5"] = "1.5"
    """`1`: coordinates from 0 to 1000; `1.5`: pixels of the resized screenshot."""
    min_pixels: Annotated[int, Ge(1)] = 100 * 28 * 28
    """Fewest pixels of the resized screenshot (the model's own default)."""
    max_pixels: Annotated[int, Ge(1)] = 16384 * 28 * 28
    """Most pixels of the resized screenshot (the model's own default)."""
    system: str = ""
    """A system message that opens every episode; empty for none."""

    example = "Action: click(start_box='(120,80)')"

    def __post_init__(self) -> None:
        self.frame  # noqa: B018 - refuses a screen that cannot be resized

    @property
    def frame(self) -> Pixels:
        """What coordinates are of."""
        if self.version == "1":
            return THOUSANDTHS
        return resized(
            self.width, self.height, min_pixels=self.min_pixels, max_pixels=self.max_pixels
        )

    def said(self, text: str) -> list[GuiAction]:
        """The one call behind the last `Action:`."""
        _, mark, behind = text.rpartition(MARK)
        if not mark:
            raise MalformedError(f"expected {MARK} and a call, got {text[:60]!r}")
        call = read_call(behind)
        named = {ALIASES.get(name, name): value for name, value in call.named.items()}
        if len(named) < len(call.named):
            raise MalformedError(f"{call.name} got a place twice")
        given = call._replace(named=named).bound(SIGNATURES)
        texts = {name: value for name, value in given.items() if isinstance(value, str)}
        if len(texts) < len(given):
            raise MalformedError(f"{call.name} takes texts in quotes, got {given!r:.80}")
        places = {name: self._place(texts[name]) for name in given if name.endswith("_box")}
        return [MAKES[call.name](texts, places)]

    def spelt(self, action: GuiAction) -> str:
        """The call for an action, without a thought."""
        return f"{MARK} {self._call(action)}"

    def _call(self, action: GuiAction) -> str:
        if name := PLAIN.get(type(action)):
            return f"{name}()"
        match action:
            case Click(Point() as at) | DoubleClick(Point() as at) | RightClick(Point() as at):
                return f"{ON_POINT[type(action)]}(start_box={self._box(at)})"
            case LongPress(Point() as at):
                return f"long_press(start_box={self._box(at)})"
            case Drag(Point() as start, Point() as end):
                return f"drag(start_box={self._box(start)}, end_box={self._box(end)})"
            case Scroll(direction, Point() as at, 500):
                return f"scroll(start_box={self._box(at)}, direction='{direction}')"
            case Scroll(direction, None, 500):
                return f"scroll(direction='{direction}')"
        return _texted(action)

    def _box(self, point: Point) -> str:
        x, y = self.frame.say(point)
        return f"'({x},{y})'"

    def _place(self, text: str) -> Point:
        words = re.split(r"[\s,]+", TAG.sub(" ", text).strip())
        if len(words) not in (2, 4) or not all(NUMBER.fullmatch(word) for word in words):
            raise MalformedError(f"expected a place such as '(500,300)', got {text[:40]!r}")
        numbers = [float(word) for word in words]
        x, y = (
            ((numbers[0] + numbers[2]) / 2, (numbers[1] + numbers[3]) / 2)
            if len(numbers) == 4
            else numbers
        )
        return self.frame.place(x, y)


Texts = Mapping[str, str]
Places = Mapping[str, Point]
MAKES: Mapping[str, Callable[[Texts, Places], GuiAction]] = {
    "click": lambda _, places: Click(places["start_box"]),
    "left_double": lambda _, places: DoubleClick(places["start_box"]),
    "right_single": lambda _, places: RightClick(places["start_box"]),
    "long_press": lambda _, places: LongPress(places["start_box"]),
    "drag": lambda _, places: Drag(places["start_box"], places["end_box"]),
    "scroll": lambda texts, places: Scroll(
        cast("Direction", texts["direction"]), places.get("start_box")
    ),
    "type": lambda texts, _: Type(texts["content"]),
    "hotkey": lambda texts, _: Press(_chord(texts["key"])),
    "open_app": lambda texts, _: Goto(APP + texts["app_name"]),
    "press_home": lambda *_: Home(),
    "press_back": lambda *_: Back(),
    "wait": lambda *_: Wait(),
    "finished": lambda texts, _: Answer(texts["content"]) if texts.get("content") else Done(),
    "call_user": lambda *_: Infeasible(),
}


def _texted(action: GuiAction) -> str:
    match action:
        case Type(text, None):
            return f"type(content={quoted(text)})"
        case Press(keys, None):
            names = [SHORT.get(key, key.lower() if key[1:] else key) for key in keys.split("+")]
            return f"hotkey(key={quoted(' '.join(names))})"
        case Goto(url) if url.startswith(APP) and url != APP:
            return f"open_app(app_name={quoted(url.removeprefix(APP))})"
        case Answer(message):
            return f"finished(content={quoted(message)})"
        case Infeasible(""):
            return "call_user()"
    raise DataError(f"UI-TARS has no call for {action}")


def _chord(text: str) -> str:
    """Canonical keys from `ctrl c` (or `ctrl+c`), whatever their order."""
    words = re.split(r"[\s+]+", text.strip())
    keys = [KEYS.get(word.lower(), word) for word in words]
    held = [key for key in keys if key in MODIFIERS]
    return "+".join([*held, *(key for key in keys if key not in MODIFIERS)])
