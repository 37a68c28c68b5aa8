"""What an agent sees of a page: its elements as lines of text or as a tree, a picture, or both.

One call lists the elements (`view`); each has a number that it keeps while the page lives, and by
which actions name it. `[ref] tag text = value (states)`:

    [1] div In order to proceed, tick two boxes.
    [2] input_checkbox tea (checked)
    [3] input_text = "milk" (focused)
    [4] button Submit
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from agentrl.core.types import Image
from agentrl.envs.browser.page import PageLease
from agentrl.text.gui import FULL, Point

SCRIPT = Path(__file__).with_name("page.js").read_text(encoding="utf-8")
"""Defines `__agentrl` in a page."""
Aspect = Literal["dom", "axtree", "screenshot", "marks"]
LONGEST = 1_000
"""Characters of a text, a name or a value that are shown."""
COLOURS = ("#d62728", "#1f77b4", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf")


class Box(NamedTuple):
    """A rectangle in CSS pixels of the viewport."""

    x: float
    y: float
    width: float
    height: float


class Screen(NamedTuple):
    """The part of the viewport that counts as the screen: from its corner, in CSS pixels."""

    width: int
    height: int

    def shows(self, box: Box) -> bool:
        """Whether a part of the box lies in it."""
        is_left = box.x < self.width and box.x + box.width > 0
        return is_left and box.y < self.height and box.y + box.height > 0

    def centre(self, box: Box) -> Point:
        """The centre of the box, or the point of the screen that is nearest to it."""
        return self.point(box.x + box.width / 2, box.y + box.height / 2)

    def point(self, x: float, y: float) -> Point:
        """A place in CSS pixels, or the point of the screen that is nearest to it."""
        across, down = round(x * FULL / self.width), round(y * FULL / self.height)
        return Point(min(max(across, 0), FULL), min(max(down, 0), FULL))


@dataclass(frozen=True, slots=True, kw_only=True)
class Element:
    """What can be seen or used. `look` tells what has no text apart: its colour,
    or `#id` or `.class`."""

    ref: str
    tag: str
    role: str
    name: str
    text: str
    value: str
    options: tuple[str, ...]
    box: Box
    states: tuple[str, ...]
    spot: tuple[float, float] | None
    """Where a click reaches it, in CSS pixels: its centre, or what of it lies in the viewport
    uncovered."""
    depth: int
    """How many listed elements hold it."""
    look: str

    @property
    def is_visible(self) -> bool:
        """Whether a click reaches it."""
        return self.spot is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """A page as it is now."""

    elements: tuple[Element, ...]
    url: str
    title: str
    width: int
    height: int

    @classmethod
    def of(cls, found: Mapping[str, object]) -> View:
        """A view from what `__agentrl.view` returned."""
        elements = found["elements"]
        assert isinstance(elements, list)
        return cls(
            elements=tuple(_element(one) for one in elements),
            url=str(found["url"]),
            title=str(found["title"]),
            width=int(str(found["width"])),
            height=int(str(found["height"])),
        )


def _element(one: dict[str, object]) -> Element:
    box, states, options, spot = one["box"], one["states"], one["options"], one["spot"]
    assert isinstance(box, list)
    assert isinstance(spot, list | None)
    assert isinstance(states, list)
    assert isinstance(options, list)
    return Element(
        ref=str(one["ref"]),
        tag=str(one["tag"]),
        role=str(one["role"]),
        name=str(one["name"]),
        text=str(one["text"]),
        value=str(one["value"]),
        options=tuple(options),
        box=Box(*box),
        states=tuple(states),
        spot=None if spot is None else (spot[0], spot[1]),
        depth=int(str(one["depth"])),
        look=str(one["look"]),
    )


async def install(page_lease: PageLease) -> None:
    """Make `view` and `perform` possible in the pages that are opened from now on."""
    await page_lease.call(page_lease.page.add_init_script(SCRIPT), "preparing the page")


async def view(page_lease: PageLease, skip: str = "") -> View:
    """The page's elements in the order of the document, but for what the CSS selector `skip`
    matches. Raises `BrowserError`."""
    return View.of(await page_lease.read("__agentrl.view", skip, "looking at the page"))


async def screenshot(page_lease: PageLease, screen: Screen) -> Image:
    """The screen as a PNG with a pixel per CSS pixel; quickest where the screen is the whole
    viewport (docs/gui.md). Raises `BrowserError`."""
    session, size = await page_lease.devtools(), page_lease.page.viewport_size
    wanted: dict[str, object] = {"format": "png", "optimizeForSpeed": True}
    if page_lease.scale != 1 or size != {"width": screen.width, "height": screen.height}:
        corner = page_lease.page.evaluate("() => [scrollX, scrollY]")
        x, y = await page_lease.call(corner, "the screenshot")
        wanted["clip"] = {"x": x, "y": y, **screen._asdict(), "scale": 1}
    taken = session.send("Page.captureScreenshot", wanted)
    found = await page_lease.call(taken, "the screenshot")
    return Image(base64.b64decode(found["data"]))


def shown(text: str) -> str:
    """A text, cut off where it is too long."""
    text = " ".join(text.split())
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def dom_text(elements: Sequence[Element], screen: Screen | None = None) -> str:
    """A line for each element: `[ref] tag text = value (states)`, and with a screen `@x,y`, the
    centre in thousandths of it."""
    return "\n".join(
        f"{_line(e)} @{','.join(map(str, screen.centre(e.box)))}" if screen else _line(e)
        for e in elements
    )


def _line(element: Element) -> str:
    parts = [f"[{element.ref}]", element.tag]
    text = shown(element.text) or (shown(element.name) if not element.options else "")
    if text:
        parts.append(text)
    elif element.look and not element.value:
        parts.append(element.look)
    if element.options:
        parts.append(f"of {shown(' | '.join(element.options))}")
    if element.value:
        parts.append(f'= "{shown(element.value)}"')
    if element.states:
        parts.append(f"({', '.join(element.states)})")
    return " ".join(parts)


def axtree_text(elements: Sequence[Element]) -> str:
    """The accessibility tree as an indented list: `- role "name" [ref] = value (states)`."""
    lines = []
    for element in elements:
        parts = [f"{'  ' * element.depth}- {element.role}"]
        if element.name:
            parts.append(f'"{shown(element.name)}"')
        parts.append(f"[{element.ref}]")
        if element.value:
            parts.append(f'= "{shown(element.value)}"')
        if element.states:
            parts.append(f"({', '.join(element.states)})")
        lines.append(" ".join(parts))
    return "\n".join(lines)


def marked(image: Image, elements: Sequence[Element], screen: Screen) -> Image:
    """The screenshot with a box and its number round each visible element (set of marks)."""
    from PIL import Image as Picture
    from PIL import ImageDraw

    picture = Picture.open(io.BytesIO(image.png)).convert("RGB")
    draw = ImageDraw.Draw(picture)
    seen = [e for e in elements if e.is_visible and screen.shows(e.box)]
    for at, element in enumerate(seen):
        colour = COLOURS[at % len(COLOURS)]
        left, top = max(0.0, element.box.x), max(0.0, element.box.y)
        right = min(screen.width - 1.0, element.box.x + element.box.width)
        bottom = min(screen.height - 1.0, element.box.y + element.box.height)
        draw.rectangle((left, top, max(left, right), max(top, bottom)), outline=colour)
        label = draw.textbbox((left, top), element.ref)
        draw.rectangle((left, top, label[2] + 1, label[3] + 1), fill=colour)
        draw.text((left + 1, top), element.ref, fill="white")
    out = io.BytesIO()
    picture.save(out, "PNG")
    return Image(out.getvalue())
