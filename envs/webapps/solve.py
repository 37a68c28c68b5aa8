"""What to do next, seen from the pages as they are now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from agentrl.core.errors import EnvError
from agentrl.core.types import Json
from agentrl.envs.browser.observe import Element, View
from agentrl.envs.webapps.errands import Data, Errand, Frame, Layout, Way, holds, matches
from agentrl.text.gui import (
    Click,
    Done,
    GuiAction,
    Home,
    LongPress,
    RightClick,
    Scroll,
    Select,
    Swipe,
    Type,
)

USABLE = ("button", "select", "input_text")


def advise(
    errands: Sequence[Errand], data: Data, first: Data, frame: Frame, view: View, layout: Layout
) -> GuiAction:
    """The next step of the first errand that is not done; `Done` after the last.

    Whoever has left the way is led back by the home screen (on a desktop by the sidebar). What
    others broke is not mended.
    """
    for errand in errands:
        if errand.is_done(data, first):
            continue
        way = next_way(errand, data, first, frame)
        if way is not None:
            return act(way, view)
        if layout == "phone":
            return Home()
        on = "Close" if frame.get("menu") else errand.ways[0].on
        return act(Way({}, "click", on), view)
    return Done()


def next_way(errand: Errand, data: Data, first: Data, frame: Frame) -> Way | None:
    """The step that is due in this frame; None if no step of the errand is taken there."""
    passed = [
        at
        for at, way in enumerate(errand.ways)
        if way.does and all(holds(change, data, first) for change in way.does)
    ]
    due = [errand.ways[0], *errand.ways[1 + max(passed, default=0) :]]
    draft = cast("Mapping[str, Json]", frame.get("draft") or {})
    for way in due:
        is_filled = way.need and all(draft.get(k) == v for k, v in way.need.items())
        if matches(way.at, frame) and not is_filled:
            return way
    return None


def act(way: Way, view: View) -> GuiAction:
    """The action for a step; if its element is out of sight, a scroll towards it."""
    if not way.on:
        return Swipe("left")
    element = find(view, way.on)
    if not element.is_visible:
        return Scroll("up" if element.box.y < view.height / 2 else "down")
    ref = element.ref
    if way.do in ("type", "select"):
        [text] = way.need.values()
        return Type(text, ref) if way.do == "type" else Select(ref, text)
    return {
        "click": Click(ref),
        "hold": LongPress(ref),
        "right": RightClick(ref),
        "swipe": Swipe("left", ref),
    }[way.do]


def find(view: View, label: str) -> Element:
    """What can be used and reads `label`, or begins with it. Raises `EnvError`."""
    usable = [element for element in view.elements if element.tag in USABLE]
    usable.sort(key=lambda element: not element.is_visible)
    for element in usable:
        if label in (element.text, element.name):
            return element
    for element in usable:
        if element.text.startswith(f"{label} "):
            return element
    shown = ", ".join(repr(element.text or element.name) for element in usable)
    raise EnvError(f"webapps: expected something that reads {label!r}, got {shown}")
