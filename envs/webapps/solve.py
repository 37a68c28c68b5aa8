"""What to do next, seen from the pages as they are now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from agentrl.core.errors import EnvError
from agentrl.core.types import Json
from agentrl.envs.browser.observe import Element, View
from agentrl.envs.webapps.errands import Data, Errand, Frame, Layout, Way, holds, matches
from agentrl.text import gui

USABLE = ("button", "select", "input_text")


def advise(
    errands: Sequence[Errand], data: Data, first: Data, frame: Frame, view: View, layout: Layout
) -> gui.GuiAction:
    """The next step of the first errand that is not done; `Done` after the last.

    Whoever has left the way is led back by the home screen (on a desktop by the sidebar). What
    others broke is not mended. A list is looked through to its end before it is said that
    something is not there.
    """
    for errand in errands:
        if errand.is_done(data, first):
            continue
        way = next_way(errand, data, first, frame)
        if way is not None:
            return act(way, view, errand.says)
        if layout == "phone":
            return gui.Home()
        on = "Close" if frame.get("menu") else errand.ways[0].on
        return act(Way({}, "click", on), view)
    return gui.Done()


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


def is_more(view: View) -> bool:
    """Whether something lies below all that can be seen."""
    lowest = max((e.box.y for e in view.elements if e.is_visible), default=0.0)
    return any(e.box.y > lowest and not e.is_visible for e in view.elements)


def act(way: Way, view: View, says: str | None = None) -> gui.GuiAction:
    """The action for a step; if its element is out of sight, a scroll towards it."""
    if not way.on:
        if way.do != "say":
            return gui.Swipe("left")
        if says is None:
            return gui.Scroll("down") if is_more(view) else gui.Infeasible()
        return gui.Answer(says)
    element = find(view, way.on)
    if not element.is_visible:
        return gui.Scroll("up" if element.box.y < view.height / 2 else "down")
    if way.do == "say":
        return gui.Infeasible() if says is None else gui.Answer(says)
    ref = element.ref
    if way.do in ("type", "select"):
        [text] = way.need.values()
        return gui.Type(text, ref) if way.do == "type" else gui.Select(ref, text)
    return {
        "click": gui.Click(ref),
        "hold": gui.LongPress(ref),
        "right": gui.RightClick(ref),
        "swipe": gui.Swipe("left", ref),
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
