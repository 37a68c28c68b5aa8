"""Does the typed actions of `text/gui.py` in a page, with a real mouse, keyboard or finger.

Only where no such event exists (an option of a list, a date or a colour) a value is set by script,
followed by the events that the browser would send. `Goto`, `Home`, `Answer`, `Done` and
`Infeasible` mean something to an application alone: `perform` refuses them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, TypeVar

from agentrl.core.errors import AgentRLError, did_you_mean
from agentrl.core.types import Spot
from agentrl.envs.browser.observe import Element, Screen
from agentrl.envs.browser.page import PageLease
from agentrl.text import gui

T = TypeVar("T")
PASSIVE = frozenset({"generic", "paragraph", "label", "heading", "listitem", "cell", "img"})
"""Roles of what is read rather than used."""
PRESS_S = 1.0
"""How long a long press lasts, and `Wait`."""
STEPS = 10
"""Moves that a drag or a swipe is made of, a frame apart."""
FRAME_S = 0.016
REST_S = 0.1
"""How long a finger rests before it is lifted: a page that is flung would swallow the next tap.
Both are told to the browser as the times of the events, and not waited for."""
SIGNS: Mapping[str, tuple[int, int]] = {
    "up": (0, -1),
    "down": (0, 1),
    "left": (-1, 0),
    "right": (1, 0),
}


class ImpossibleActionError(AgentRLError, ValueError):
    """The action cannot be done in this page as it is: an invalid action, no fault of the page."""


class Place(NamedTuple):
    """A place on the page, and what is there as far as typing is concerned."""

    x: float
    y: float
    is_text: bool = False
    is_set: bool = False
    """Its value is set, not typed: a date, a colour, a slider."""
    is_filled: bool = False


@dataclass(frozen=True, kw_only=True)
class Hands:
    """Acts on a page."""

    lease: PageLease
    screen: Screen
    touch: bool = False
    """Use a finger where a mouse would be used (the page has a touch screen)."""
    wait_s: float = PRESS_S
    """What `Wait` waits by the clock on the wall."""
    known: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Where a click reaches elements, in a page that stood still since they were listed."""

    async def perform(self, action: gui.GuiAction) -> None:
        """Do it.

        Raises:
            ImpossibleActionError: the page offers no such thing; nothing was done.
            BrowserError: the page or its browser failed.
        """
        match action:
            case gui.Click(target=target):
                await self._click(await self._at(target))
            case gui.DoubleClick(target=target):
                await self._click(await self._at(target), count=2)
            case gui.RightClick(target=target):
                spot = await self._at(target)
                await self._do(self.lease.page.mouse.click(spot.x, spot.y, button="right"))
            case gui.LongPress(target=target):
                await self._hold(await self._spot(target))
            case gui.Hover(target=target):
                spot = await self._spot(target)
                await self._do(self.lease.page.mouse.move(spot.x, spot.y))
            case gui.Drag(start=start, end=end):
                await self._drag(await self._spot(start), await self._spot(end))
            case gui.Type():
                await self._type(action)
            case gui.Press():
                await self._press(action)
            case _:
                await self._perform_other(action)

    async def _perform_other(self, action: gui.GuiAction) -> None:
        match action:
            case gui.Scroll():
                await self._scroll(action)
            case gui.Swipe(direction=direction, target=target, amount=amount):
                await self._swipe(await self._spot(target), direction, amount)
            case gui.Select(target=target, value=value):
                await self._select(target, value)
            case gui.Back():
                await self._do(self.lease.page.go_back())
            case gui.Wait():
                await asyncio.sleep(self.wait_s)
            case _:
                raise ImpossibleActionError(f"{gui.NAMES[type(action)]} means nothing here")

    async def _do(self, awaitable: Awaitable[T]) -> T:
        return await self.lease.call(awaitable, "an action")

    def pixels(self, point: gui.Point) -> tuple[float, float]:
        """CSS pixels of a point, within the screen."""
        x, y = (point.x * self.screen.width / gui.FULL, point.y * self.screen.height / gui.FULL)
        return min(x, self.screen.width - 1.0), min(y, self.screen.height - 1.0)

    async def _at(self, target: gui.Target) -> Place:
        """Where to click."""
        is_known = isinstance(target, str) and target in self.known
        return Place(*self.known[str(target)]) if is_known else await self._spot(target)

    async def _spot(self, target: gui.Target | None) -> Place:
        """Where a target is; the middle of the screen if it is None."""
        if target is None:
            return Place(self.screen.width / 2, self.screen.height / 2)
        if isinstance(target, gui.Point):
            return Place(*self.pixels(target))
        if isinstance(target, gui.Label) or not target.isdecimal():
            raise ImpossibleActionError(f"there is no element {target}")
        found = await self._do(self.lease.page.evaluate("r => __agentrl.place(r)", target))
        if found is None:
            raise ImpossibleActionError(f"there is no element {target}, or it cannot be seen")
        return _spot(found)

    async def _click(self, spot: Place, count: int = 1) -> None:
        page = self.lease.page
        if not self.touch:
            await self._do(page.mouse.click(spot.x, spot.y, click_count=count))
            return
        for _ in range(count):
            await self._do(page.touchscreen.tap(spot.x, spot.y))

    async def _hold(self, spot: Place) -> None:
        if self.touch:
            await self._touch("touchStart", time.time(), spot)
            await asyncio.sleep(PRESS_S)
            await self._touch("touchEnd", time.time())
            await self._settle()
            return
        mouse = self.lease.page.mouse
        await self._do(mouse.move(spot.x, spot.y))
        await self._do(mouse.down())
        await asyncio.sleep(PRESS_S)
        await self._do(mouse.up())

    async def _drag(self, start: Place, end: Place) -> None:
        if self.touch:
            await self._finger(_between(start, end))
            return
        mouse = self.lease.page.mouse
        await self._do(mouse.move(start.x, start.y))
        await self._do(mouse.down())
        await self._do(mouse.move(end.x, end.y, steps=STEPS))
        await self._do(mouse.up())

    async def _finger(self, path: Sequence[Place]) -> None:
        """Put a finger down at the first spot, move it along, and lift it at the last."""
        await self.lease.devtools()  # opened once, before many ask for it
        lifted = time.time()
        times = [lifted - REST_S - FRAME_S * step for step in range(len(path), 0, -1)]
        kinds = ["touchStart"] + ["touchMove"] * (len(path) - 1)
        moves = map(self._touch, kinds, times, path)
        await asyncio.gather(*moves, self._touch("touchEnd", lifted))
        await self._settle()

    async def _touch(self, kind: str, at: float, *spots: Place) -> None:
        """One event of a finger, at a time of the clock on the wall."""
        points = [{"x": spot.x, "y": spot.y} for spot in spots]
        event = {"type": kind, "touchPoints": points, "timestamp": at}
        session = await self.lease.devtools()
        await self._do(session.send("Input.dispatchTouchEvent", event))

    async def _swipe(self, start: Place, direction: str, amount: int) -> None:
        if not self.touch:
            raise ImpossibleActionError("there is no touch screen: use scroll or drag")
        x, y = SIGNS[direction]
        end = Place(
            _within(start.x + x * amount * self.screen.width / gui.FULL, self.screen.width),
            _within(start.y + y * amount * self.screen.height / gui.FULL, self.screen.height),
        )
        await self._finger(_between(start, end))

    async def _scroll(self, action: gui.Scroll) -> None:
        spot = await self._spot(action.target)
        x, y = SIGNS[action.direction]
        right = x * action.amount * self.screen.width / gui.FULL
        down = y * action.amount * self.screen.height / gui.FULL
        if self.touch:
            end = Place(
                _within(spot.x - right, self.screen.width),
                _within(spot.y - down, self.screen.height),
            )
            await self._finger(_between(spot, end))
            return
        await self._do(self.lease.page.mouse.move(spot.x, spot.y))
        await self._do(self.lease.page.mouse.wheel(right, down))
        await self._settle()

    async def _settle(self) -> None:
        await self._do(self.lease.page.evaluate("() => __agentrl.settle()"))

    async def _type(self, action: gui.Type) -> None:
        keyboard, page = self.lease.page.keyboard, self.lease.page
        if action.target is not None:
            spot = await self._spot(action.target)
            if spot.is_set:
                await self._set(action.target, action.text)
                return
            await self._click(spot)
            if not spot.is_text:  # a point, or what leads to a field, such as its label
                found = await self._do(page.evaluate("() => __agentrl.focused()"))
                spot = Place(0, 0) if found is None else _spot(found)
            if spot.is_set:
                await self._set(action.target, action.text)
                return
            if not spot.is_text:
                raise ImpossibleActionError("nothing can be typed there")
            if spot.is_filled:
                await self._do(keyboard.press("Control+a"))
                if not action.text:
                    await self._do(keyboard.press("Delete"))
        await self._do(keyboard.type(action.text))

    async def _set(self, target: gui.Target, value: str) -> None:
        found = self.lease.page.evaluate(
            "([ref, point, value]) => __agentrl.set(ref, point, value)", self._named(target, value)
        )
        if not await self._do(found):
            raise ImpossibleActionError("nothing can be typed there")

    def _named(self, target: gui.Target, value: str) -> list[object]:
        if isinstance(target, gui.Point):
            return [None, self.pixels(target), value]
        return [target, None, value]

    async def _press(self, action: gui.Press) -> None:
        if isinstance(action.target, gui.Point):
            await self._click(await self._spot(action.target))
        elif action.target is not None:
            found = self.lease.page.evaluate("ref => __agentrl.focus(ref)", action.target)
            if not await self._do(found):
                raise ImpossibleActionError(f"there is no element {action.target}")
        await self._do(self.lease.page.keyboard.press(action.keys))

    async def _select(self, target: gui.Target, value: str) -> None:
        found = await self._do(
            self.lease.page.evaluate(
                "([ref, point, value]) => __agentrl.select(ref, point, value)",
                self._named(target, value),
            )
        )
        if found is False:
            raise ImpossibleActionError("there is nothing to choose from")
        if found is not None:
            raise ImpossibleActionError(
                f"no option reads {value!r}{did_you_mean(value, found)} ({' | '.join(found)})"
            )


def _spot(found: Mapping[str, object]) -> Place:
    return Place(
        float(str(found["x"])),
        float(str(found["y"])),
        bool(found["isText"]),
        bool(found["isSet"]),
        bool(found["isFilled"]),
    )


def _between(start: Place, end: Place) -> list[Place]:
    """The spots of a straight path, both ends included."""
    shares = [step / STEPS for step in range(STEPS + 1)]
    return [Place(start.x + s * (end.x - start.x), start.y + s * (end.y - start.y)) for s in shares]


def _within(at: float, size: int) -> float:
    return min(max(at, 1.0), size - 2.0)


def numbered(action: gui.GuiAction, elements: Sequence[Element]) -> gui.GuiAction:
    """The action with the numbers of elements in place of their texts (`called`).

    Raises:
        ImpossibleActionError: nothing reads so.
    """
    found = {}
    for name, label in _targets(action, gui.Label):
        element = called(label.text, elements)
        if element is None:
            known = dict.fromkeys(text for e in elements for text in (e.text, e.name) if text)
            near = did_you_mean(label.text, known)
            raise ImpossibleActionError(f"nothing reads {label.text[:40]!r}{near}")
        found[name] = element.ref
    return replace(action, **found) if found else action  # type: ignore[type-var]


def labelled(action: gui.GuiAction, elements: Sequence[Element]) -> gui.GuiAction:
    """The action with the texts of elements in place of their numbers, where a text is enough."""
    of = {element.ref: element for element in elements}
    found = {}
    for name, ref in _targets(action, str):
        element = of.get(ref)
        text = "" if element is None else element.text or element.name
        if text.strip() and called(text, elements) is element:
            found[name] = gui.Label(text)
    return replace(action, **found) if found else action  # type: ignore[type-var]


def spots(action: gui.GuiAction, elements: Sequence[Element], screen: Screen) -> list[Spot]:
    """Where an action points on the screen as it was shown: at points, and at the elements that
    can be seen there; whatever else it points at is left out."""
    of = {element.ref: element for element in elements}
    found = []
    for name, target in _targets(action, object):
        element = of.get(target) if isinstance(target, str) else None
        if element is not None and element.spot is not None and screen.shows(element.box):
            target = screen.point(*element.spot)
        if isinstance(target, gui.Point):
            found.append(Spot(*target, is_end=name == "end"))
    return found


def called(text: str, elements: Sequence[Element]) -> Element | None:
    """The element whose whole text or name this is: rather one that can be seen, then rather one
    that can be used, then the first."""
    found = [element for element in elements if text in (element.text, element.name)]
    found.sort(key=lambda element: (not element.is_visible, element.role in PASSIVE))
    return found[0] if found else None


def _targets(action: gui.GuiAction, kind: type[T]) -> list[tuple[str, T]]:
    """The fields of an action that name a target of a kind."""
    fields = [name for name in gui.names(type(action)) if name in ("target", "start", "end")]
    values = [(name, getattr(action, name)) for name in fields]
    return [(name, value) for name, value in values if isinstance(value, kind)]
