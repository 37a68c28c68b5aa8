"""What an agent sees of a page, and that its actions are real events with their real effects."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Iterator

import pytest
from PIL import Image as Picture

from agentrl.envs.browser.observe import (
    Screen,
    View,
    axtree_text,
    dom_text,
    install,
    marked,
    screenshot,
    view,
)
from agentrl.envs.browser.perform import Hands, ImpossibleActionError
from agentrl.envs.browser.pool import BrowserSettings, PageLease, lease
from agentrl.text.gui import (
    Back,
    Click,
    DoubleClick,
    Drag,
    Goto,
    GuiAction,
    Hover,
    LongPress,
    Point,
    Press,
    RightClick,
    Scroll,
    Select,
    Swipe,
    Type,
)
from support.browsers import kept_browser

pytestmark = pytest.mark.browser

SETTINGS = BrowserSettings(timeout_s=20.0)
SCREEN = Screen(400, 300)
PAGE = """
<meta name=viewport content="width=device-width">
<body style="margin:8px;font:16px sans-serif">
<p id=note>Some words with <a href="#there">a link</a> inside</p>
<button id=ok>Okay <b>now</b></button> <input id=name value=old> <input id=day type=date>
<label><input id=tick type=checkbox> Tick me</label>
<select id=pick><option>red<option>green<option disabled>blue</select>
<div id=square style="width:40px;height:40px;background:rgb(255, 0, 0)"></div>
<div style="display:none">hidden</div><div style="visibility:hidden">unseen</div>
<div id=list style="height:50px;overflow:auto"><p>first</p><p>second</p><p>third</p>
<button id=deep>Deep</button></div>
<div style="height:600px"></div><button id=far>Far</button>
<script>
window.seen = [];
for (const kind of ["click", "dblclick", "contextmenu", "keydown", "input", "change", "mousedown",
  "mouseup", "mouseover", "touchstart", "touchend", "scroll"])
  document.addEventListener(kind, (e) => seen.push(
    [kind, e.target.id || e.target.localName || "document", e.isTrusted].join(" ")), true);
document.addEventListener("contextmenu", (e) => e.preventDefault());
</script>
"""


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.Runner]:
    with kept_browser(SETTINGS) as runner:
        yield runner


async def opened(*, touch: bool = False) -> PageLease:
    page_lease = await lease(SETTINGS, viewport=SCREEN, touch=touch)
    await install(page_lease)
    await page_lease.call(page_lease.page.goto("data:text/html," + PAGE.replace("#", "%23")), "it")
    return page_lease


def named(seen: View, words: str) -> str:
    """The number of the element whose name or text begins with `words`."""
    [ref] = [e.ref for e in seen.elements if e.name.startswith(words) or e.look.startswith(words)]
    return ref


async def after(page_lease: PageLease, action: GuiAction, *, touch: bool = False) -> list[str]:
    """The events that an action sets off."""
    await page_lease.call(page_lease.page.evaluate("() => { seen.length = 0; }"), "forgetting")
    await Hands(lease=page_lease, screen=SCREEN, touch=touch).perform(action)
    events = await page_lease.call(page_lease.page.evaluate("seen"), "the events")
    assert all(event.endswith("true") for event in events if not event.startswith("scroll"))
    return [event.rpartition(" ")[0] for event in events]


async def value(page_lease: PageLease, script: str) -> object:
    return await page_lease.call(page_lease.page.evaluate(script), "a value")


def test_elements_are_listed_as_lines_and_as_a_tree(loop: asyncio.Runner) -> None:
    async def script() -> None:
        page_lease = await opened()
        seen = await view(page_lease)
        lines = [line.split("] ", 1)[1] for line in dom_text(seen.elements).splitlines()]
        assert lines == [
            "p Some words with inside",
            "a a link",
            "button Okay now",
            'input_text = "old"',
            "input_date",
            "label Tick me",
            "input_checkbox Tick me",
            'select of red | green | blue = "red"',
            "div rgb(255, 0, 0)",
            "p first",
            "p second",
            "p third",
            "button Deep",
            "button Far",
        ]
        tree = axtree_text(seen.elements).splitlines()
        assert '  - link "a link" [2]' in tree
        assert '  - checkbox "Tick me" [7]' in tree
        visible = {e.text for e in seen.elements if e.is_visible}
        assert "first" in visible
        assert not {"Deep", "Far"} & visible
        again = await view(page_lease, skip="#list,p")
        assert [e.ref for e in again.elements] == ["3", "4", "5", "6", "7", "8", "9", "14"]
        await page_lease.give_back()

    loop.run(script())


def test_pictures_have_the_size_of_the_screen_and_marks_change_them(loop: asyncio.Runner) -> None:
    async def script() -> None:
        page_lease = await opened()
        seen = await view(page_lease)
        taken, again = [await screenshot(page_lease, SCREEN) for _ in range(2)]
        assert taken.hash == again.hash
        with_marks = marked(taken, seen.elements, SCREEN)
        for image in (taken, with_marks):
            assert Picture.open(io.BytesIO(image.png)).size == SCREEN
        assert with_marks.hash != taken.hash
        await page_lease.give_back()

    loop.run(script())


def test_a_picture_shows_what_is_scrolled_to_in_css_pixels(loop: asyncio.Runner) -> None:
    async def script() -> None:
        page_lease = await lease(SETTINGS, viewport=(200, 100), scale=2)
        await install(page_lease)
        html = "<body style='margin:0'><div style='height:500px;background:white'></div>"
        red = "<div style='height:500px;background:rgb(255, 0, 0)'></div>"
        await page_lease.call(page_lease.page.goto(f"data:text/html,{html}{red}"), "it")
        await page_lease.call(page_lease.page.evaluate("scrollTo(0, 450)"), "scrolling")
        taken = await screenshot(page_lease, Screen(150, 100))
        picture = Picture.open(io.BytesIO(taken.png)).convert("RGB")
        assert picture.size == (150, 100)
        assert [picture.getpixel((10, y)) for y in (40, 60)] == [(255, 255, 255), (255, 0, 0)]
        await page_lease.give_back()

    loop.run(script())


def test_mouse_actions_are_trusted_events_on_the_element(loop: asyncio.Runner) -> None:
    async def script() -> None:
        page_lease = await opened()
        seen = await view(page_lease)
        okay, square = named(seen, "Okay"), named(seen, "rgb(255")
        assert "click ok" in await after(page_lease, Click(okay))
        assert "dblclick square" in await after(page_lease, DoubleClick(square))
        assert "contextmenu square" in await after(page_lease, RightClick(square))
        assert "mouseover ok" in await after(page_lease, Hover(okay))
        dragged = await after(page_lease, Drag(okay, square))
        assert [e for e in dragged if e.startswith("mouse")][-2:] == [
            "mouseover square",
            "mouseup square",
        ]
        box = next(e.box for e in seen.elements if e.ref == square)
        middle = Point(
            round((box.x + box.width / 2) * 1000 / SCREEN.width),
            round((box.y + box.height / 2) * 1000 / SCREEN.height),
        )
        assert "click square" in await after(page_lease, Click(middle))
        assert "click far" in await after(page_lease, Click(named(seen, "Far")))
        assert "click deep" in await after(page_lease, Click(named(seen, "Deep")))
        held = await after(page_lease, LongPress(okay))
        assert held.index("mousedown ok") < held.index("mouseup ok")
        await page_lease.give_back()

    loop.run(script())


def test_typing_replaces_and_keys_are_pressed(loop: asyncio.Runner) -> None:
    async def script() -> None:
        page_lease = await opened()
        seen = await view(page_lease)
        [name] = [e.ref for e in seen.elements if e.value == "old"]
        [day] = [e.ref for e in seen.elements if e.tag == "input_date"]
        events = await after(page_lease, Type("né w", name))
        assert events.count("keydown name") >= 3
        assert await value(page_lease, "document.querySelector('#name').value") == "né w"
        await after(page_lease, Type("!"))
        assert await value(page_lease, "document.querySelector('#name').value") == "né w!"
        assert "keydown name" in await after(page_lease, Press("Control+a"))
        await after(page_lease, Press("Backspace", name))
        assert await value(page_lease, "document.querySelector('#name').value") == ""
        await Hands(lease=page_lease, screen=SCREEN).perform(Type("2016-03-14", day))
        assert await value(page_lease, "document.querySelector('#day').value") == "2016-03-14"
        with pytest.raises(ImpossibleActionError, match="nothing can be typed"):
            await after(page_lease, Type("x", named(seen, "rgb(255")))
        await page_lease.give_back()

    loop.run(script())


def test_options_are_chosen_by_what_they_read(loop: asyncio.Runner) -> None:
    async def script() -> None:
        page_lease = await opened()
        [pick] = [e.ref for e in (await view(page_lease)).elements if e.options]
        hands = Hands(lease=page_lease, screen=SCREEN)
        await hands.perform(Select(pick, "green"))
        assert await value(page_lease, "document.querySelector('#pick').value") == "green"
        assert "change pick false" in str(await value(page_lease, "seen"))
        with pytest.raises(ImpossibleActionError, match=r"did you mean 'green'\? \(red \| green"):
            await hands.perform(Select(pick, "greed"))
        for impossible in (Select("1", "red"), Click("999"), Goto("x"), Swipe("up")):
            with pytest.raises(ImpossibleActionError):
                await hands.perform(impossible)
        await page_lease.give_back()

    loop.run(script())


def test_scrolling_shows_what_is_below(loop: asyncio.Runner) -> None:
    async def script() -> None:
        page_lease = await opened()
        seen = await view(page_lease)
        await after(page_lease, Scroll("down", named(seen, "first"), 100))
        assert await value(page_lease, "document.querySelector('#list').scrollTop") == 30
        await after(page_lease, Scroll("down", Point(500, 20), 500))
        assert await value(page_lease, "scrollY") == 150
        await page_lease.give_back()

    loop.run(script())


def test_a_finger_taps_swipes_and_holds(loop: asyncio.Runner) -> None:
    async def script() -> None:
        page_lease = await opened(touch=True)
        okay = named(await view(page_lease), "Okay")
        tapped = await after(page_lease, Click(okay), touch=True)
        assert [e for e in tapped if "touch" in e or "click" in e] == [
            "touchstart ok",
            "touchend ok",
            "click ok",
        ]
        held = await after(page_lease, LongPress(okay), touch=True)
        assert {"touchstart ok", "touchend ok"} <= set(held)
        await after(page_lease, Swipe("up", Point(500, 950), 400), touch=True)
        moved = await value(page_lease, "scrollY")
        assert isinstance(moved, int | float)
        assert moved > 50
        await after(page_lease, Scroll("up", Point(500, 100), 400), touch=True)
        back = await value(page_lease, "scrollY")
        assert isinstance(back, int | float)
        assert back < moved
        await page_lease.give_back()

    loop.run(script())


def test_back_goes_to_the_page_before(loop: asyncio.Runner) -> None:
    async def script() -> None:
        page_lease = await opened()
        await page_lease.call(page_lease.page.goto("data:text/html,<title>second</title>"), "it")
        await Hands(lease=page_lease, screen=SCREEN).perform(Back())
        assert "Okay now" in dom_text((await view(page_lease)).elements)
        await page_lease.give_back()

    loop.run(script())
