"""Scripts that solve tasks of MiniWoB++: what to do now, from the goal and what can be seen.

Each looks at the page as it is, so that it goes on from wherever somebody else left it, as far as
the page shows that. Each solved the first 20 test tasks of its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from agentrl.envs.browser.observe import Element
from agentrl.text.gui import Click, Drag, GuiAction, Hover, Select, Type, Wait

ORDINAL = re.compile(r"(\d+)(?:st|nd|rd|th)")
FIELDS = ("input_text", "input_password", "textarea")
ENDS = ("submit", "search", "login", "ok", "go!", "go")
COLOURS = {
    "red": "255, 0, 0",
    "blue": "0, 0, 255",
    "olive": "128, 128, 0",
    "lime": "0, 255, 0",
    "black": "0, 0, 0",
    "white": "255, 255, 255",
    "grey": "128, 128, 128",
    "purple": "128, 0, 128",
    "orange": "255, 165, 0",
    "yellow": "255, 255, 0",
    "cyan": "0, 255, 255",
    "pink": "255, 192, 203",
    "magenta": "255, 0, 255",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What an oracle looks at."""

    goal: str
    elements: Sequence[Element]
    steps: int
    """Actions taken so far."""

    def quoted(self) -> list[str]:
        """The texts in quotes in the goal."""
        return re.findall(r'"([^"]*)"', self.goal)

    def asked(self, pattern: str) -> str:
        """What a group of a pattern finds in the goal."""
        found = re.search(pattern, self.goal)
        return "" if found is None else found[1]

    def number(self) -> int:
        """The first ordinal of the goal, counted from 0."""
        found = ORDINAL.search(self.goal)
        return 0 if found is None else int(found[1]) - 1

    def of(self, *tags: str) -> list[Element]:
        """The elements of these tags."""
        return [element for element in self.elements if element.tag in tags]

    def find(self, text: str, *tags: str) -> Element | None:
        """The first element of these tags with this text, or this name."""
        return next((e for e in self.of(*tags) if text in (e.text, e.name)), None)


Oracle = Callable[[Scene], GuiAction]


def click(element: Element | None) -> GuiAction:
    """Click it; wait if it is not there (yet)."""
    return Wait() if element is None else Click(element.ref)


def submit(scene: Scene) -> GuiAction:
    """The button that ends the task: the last one."""
    named = [e for e in scene.elements if e.text.lower() in ENDS]
    return click(named[-1] if named else None)


def filled(scene: Scene, *wanted: tuple[Element, str]) -> GuiAction:
    """Fill the first field that does not hold what it should, or submit."""
    for field, text in wanted:
        if field.value != text:
            return Type(text, field.ref)
    return submit(scene)


def field_with(text: Callable[[Scene], str]) -> Oracle:
    """Type a text that the scene tells into the page's last line of text, and submit."""
    return lambda scene: filled(scene, (scene.of("input_text")[-1], text(scene)))


def quoted_button(scene: Scene) -> GuiAction:
    """The button that the goal quotes."""
    return click(scene.find(scene.quoted()[0], "button"))


def named_button(scene: Scene) -> GuiAction:
    """`Click button ONE.`"""
    return click(scene.find(scene.asked(r"button (\w+)"), "button"))


def only_button(scene: Scene) -> GuiAction:
    """The only one that there is."""
    return click(next(iter(scene.of("button")), None))


def dialog_button(scene: Scene) -> GuiAction:
    """The button of a dialog; `x` is called Close."""
    label = scene.quoted()[0]
    return click(scene.find("Close" if label == "x" else label, "button"))


def in_sequence(scene: Scene) -> GuiAction:
    """ONE, then TWO: the first keeps the focus once it was clicked."""
    one, two = scene.find("ONE", "button"), scene.find("TWO", "button")
    return click(two if one is not None and "focused" in one.states else one)


def with_delay(scene: Scene) -> GuiAction:
    """ONE, a second, then TWO."""
    one, two = scene.find("ONE", "button"), scene.find("TWO", "button")
    if one is None or "focused" not in one.states:
        return click(one)
    return Wait() if scene.steps < 2 else click(two)


def link(scene: Scene) -> GuiAction:
    """The text that is a link."""
    return click(scene.find(scene.quoted()[0], "span", "a"))


def boxes(scene: Scene) -> GuiAction:
    """Tick what the goal lists, and nothing else."""
    said = scene.asked(r"Select (.*) and click Submit")
    wanted = set() if said == "nothing" else set(said.split(", "))
    for box in scene.of("input_checkbox", "input_radio"):
        if (box.name in wanted) != ("checked" in box.states):
            return Click(box.ref)
    return submit(scene)


def tab(scene: Scene) -> GuiAction:
    """`Click on Tab #1.`"""
    return click(scene.find(scene.asked(r"(Tab #\d+)"), "a"))


def through_tabs(scene: Scene) -> GuiAction:
    """One tab after another until the link is there."""
    wanted = scene.find(scene.quoted()[0], "span")
    if wanted is not None:
        return Click(wanted.ref)
    tabs = scene.of("a")
    chosen = [e for e in scene.of("li") if "selected" in e.states or "expanded" in e.states]
    here = next((at for at, e in enumerate(tabs) if chosen and e.text == chosen[0].name), -1)
    return click(tabs[(here + 1) % len(tabs)] if tabs else None)


def section(scene: Scene) -> GuiAction:
    """Open the one section, then submit."""
    closed = [e for e in scene.of("h3") if "collapsed" in e.states]
    return click(closed[0]) if closed else submit(scene)


def through_sections(scene: Scene) -> GuiAction:
    """One section after another until the link is there."""
    wanted = scene.find(scene.quoted()[0], "span")
    if wanted is not None:
        return Click(wanted.ref)
    heads = scene.of("h3")
    opened = [at for at, e in enumerate(heads) if "expanded" in e.states]
    return click(heads[(opened[-1] + 1 if opened else 0) % len(heads)] if heads else None)


def widget(scene: Scene) -> GuiAction:
    """The first widget of a kind."""
    kind = scene.quoted()[0]
    tags = {"text": "input_text", "radio": "input_radio", "checkbox": "input_checkbox"}
    return click(next(iter(scene.of(tags.get(kind, kind))), None))


def colour(scene: Scene) -> GuiAction:
    """The box of a colour."""
    name = scene.asked(r"the (\w+) colored")
    look = f"rgb({COLOURS[name]})"
    return click(next((e for e in scene.elements if e.look == look), None))


def choice(scene: Scene) -> GuiAction:
    """An option of a list."""
    wanted, [found] = scene.asked(r"Select (.*) from the list"), scene.of("select")
    return submit(scene) if found.value == wanted else Select(found.ref, wanted)


def choices(scene: Scene) -> GuiAction:
    """Several options of a list."""
    wanted, [found] = scene.asked(r"Select (.*) from the scroll"), scene.of("select")
    for one in wanted.split(", "):
        if one not in found.value.split("|"):
            return Select(found.ref, one)
    return submit(scene)


def letters(scene: Scene) -> str:
    """The quoted text in upper or lower case."""
    text = scene.quoted()[0]
    return text.upper() if "upper" in scene.goal else text.lower()


def passwords(scene: Scene) -> GuiAction:
    """The same password in all fields."""
    return filled(scene, *((e, scene.quoted()[0]) for e in scene.of("input_password")))


def login(scene: Scene) -> GuiAction:
    """User name and password."""
    [name], [secret] = scene.of("input_text"), scene.of("input_password")
    return filled(scene, *zip((name, secret), scene.quoted(), strict=True))


def focus(scene: Scene) -> GuiAction:
    """Click into a field."""
    return click(scene.of(*FIELDS)[scene.number()])


def date(scene: Scene) -> GuiAction:
    """A date as the field keeps it."""
    month, day, year = scene.asked(r"Enter (\S+)").split("/")
    return filled(scene, (scene.of("input_date")[0], f"{year}-{month}-{day}"))


def time(scene: Scene) -> GuiAction:
    """A time as the field keeps it: of 24 hours."""
    hour, minute = scene.asked(r"(\d+:\d+)").split(":")
    late = 12 * ("PM" in scene.goal)
    return filled(scene, (scene.of("input_time")[0], f"{int(hour) % 12 + late:02}:{minute}"))


def calculated(left: int, sign: str, right: int) -> int:
    """What a sum comes to."""
    return {"+": left + right, "-": left - right, "x": left * right}[sign]


def arithmetic(scene: Scene) -> str:
    """`2 x 4 =`"""
    left, sign, right = scene.of("div")[0].text.rstrip("= ").split()
    return str(calculated(int(left), sign, int(right)))


def algebra(scene: Scene) -> str:
    """`x + 2 = 43`: tried out."""
    left, sign, right, _, result = scene.of("div")[0].text.split()
    for x in range(-300, 300):
        one, other = (x if side == "x" else int(side) for side in (left, right))
        if calculated(one, sign, other) == int(result):
            return str(x)
    return ""


def table(scene: Scene) -> dict[str, str]:
    """A table of two columns."""
    cells = [e.text for e in scene.of("td")]
    return dict(zip(cells[::2], cells[1::2], strict=False))


def labelled(scene: Scene) -> GuiAction:
    """The table's values in the fields with their labels."""
    names = [e.text.rstrip(":") for e in scene.of("label")]
    known = table(scene)
    pairs = zip(scene.of("input_text"), names, strict=True)
    return filled(scene, *((field, known[name]) for field, name in pairs))


def word(scene: Scene) -> str:
    """The n-th word of a paragraph."""
    return scene.of("p")[0].text.split()[scene.number()].strip(".,")


def blocks(scene: Scene) -> str:
    """How many coloured blocks there are."""
    return str(sum(e.look.startswith("rgb") for e in scene.of("span")))


def joined(scene: Scene) -> str:
    """The letters one after another."""
    return "".join(e.text for e in scene.of("span"))


def film(scene: Scene) -> GuiAction:
    """The search form, however it is laid out."""
    found = re.search(r"for (.*) movies directed by (.*) from year (\d+)", scene.goal)
    genre, director, year = found.groups() if found else ("", "", "")
    asked = {"genre": genre, "director": director, "year": year, "date": year}
    labels = [key for e in scene.elements for key in asked if key in e.text.lower()]
    wanted = [(e, asked[key]) for e, key in zip(scene.of("input_text"), labels, strict=False)]
    return filled(scene, *wanted)


def coordinate(scene: Scene) -> GuiAction:
    """A point of a grid from -2 to 2; y grows upwards."""
    found = re.search(r"\((-?\d+),(-?\d+)\)", scene.goal)
    x, y = (int(one) for one in found.groups()) if found else (0, 0)
    circles = scene.of("circle")
    columns = sorted({round(e.box.x) for e in circles})
    rows = sorted({round(e.box.y) for e in circles}, reverse=True)
    place = (columns[x + 2], rows[y + 2])
    return click(next((e for e in circles if (round(e.box.x), round(e.box.y)) == place), None))


def menu(scene: Scene) -> GuiAction:
    """Open menu by menu, and choose in the last one."""
    path = scene.asked(r"Select (.*)").split(">")
    for name in reversed(path):
        found = [e for e in scene.elements if e.text == name and e.is_visible]
        if found:
            return Click(found[-1].ref) if name == path[-1] else Hover(found[-1].ref)
    return Wait()


def drag(scene: Scene) -> GuiAction:
    """The small box into the large one."""
    small, large = sorted(scene.of("div"), key=lambda e: e.box.width)[:2]
    is_inside = (
        small.box.x >= large.box.x
        and small.box.y >= large.box.y
        and small.box.x + small.box.width <= large.box.x + large.box.width
        and small.box.y + small.box.height <= large.box.y + large.box.height
    )
    return submit(scene) if is_inside else Drag(small.ref, large.ref)


def delete_mail(scene: Scene) -> GuiAction:
    """Open the message of a sender, then the bin."""
    bins = [e for e in scene.elements if e.look == ".trash"]
    sender = scene.asked(r"email by (\S+)")
    messages = [e for e in scene.elements if e.text.startswith(sender)]
    return click(next(iter(bins or messages), None))


def generate(scene: Scene) -> GuiAction:
    """Another number until it is as asked for."""
    shown = scene.of("div")[0].text
    if shown.lstrip("-").isdecimal():
        number, bound = int(shown), int(scene.asked(r"than (-?\d+)") or 0)
        tests = {
            "greater": number > bound,
            "less": number < bound,
            "even": number % 2 == 0,
            "odd": number % 2 == 1,
        }
        if all(holds for word, holds in tests.items() if word in scene.goal):
            return submit(scene)
    return click(scene.find("Generate", "button"))


def form(scene: Scene) -> GuiAction:
    """A radio button and a number in a field."""
    first, second = (int(n) - 1 for n in ORDINAL.findall(scene.goal))
    radio, field = scene.of("input_radio")[first], scene.of("input_text")[second]
    if "checked" not in radio.states:
        return Click(radio.ref)
    return filled(scene, (field, scene.quoted()[0]))


ORACLES: Mapping[str, Oracle] = {
    "button-delay": with_delay,
    "choose-list": choice,
    "click-button": quoted_button,
    "click-button-sequence": in_sequence,
    "click-checkboxes": boxes,
    "click-checkboxes-large": boxes,
    "click-checkboxes-transfer": boxes,
    "click-collapsible": section,
    "click-collapsible-2": through_sections,
    "click-collapsible-2-nodelay": through_sections,
    "click-collapsible-nodelay": section,
    "click-color": colour,
    "click-dialog": only_button,
    "click-dialog-2": dialog_button,
    "click-link": link,
    "click-menu": menu,
    "click-option": boxes,
    "click-scroll-list": choices,
    "click-tab": tab,
    "click-tab-2": through_tabs,
    "click-tab-2-easy": through_tabs,
    "click-tab-2-hard": through_tabs,
    "click-tab-2-medium": through_tabs,
    "click-test": only_button,
    "click-test-2": named_button,
    "click-test-transfer": named_button,
    "click-widget": widget,
    "copy-paste": field_with(lambda scene: scene.of("textarea")[0].value),
    "copy-paste-2": field_with(lambda scene: scene.of("textarea")[scene.number()].value),
    "drag-box": drag,
    "email-inbox-delete": delete_mail,
    "enter-date": date,
    "enter-password": passwords,
    "enter-text": field_with(lambda scene: scene.quoted()[0]),
    "enter-text-2": field_with(letters),
    "enter-text-dynamic": field_with(lambda scene: scene.quoted()[0]),
    "enter-time": time,
    "find-word": field_with(word),
    "focus-text": focus,
    "focus-text-2": focus,
    "form-sequence-2": form,
    "generate-number": generate,
    "grid-coordinate": coordinate,
    "login-user": login,
    "multi-layouts": film,
    "multi-orderings": film,
    "read-table": field_with(lambda scene: table(scene)[scene.asked(r"value of (.*) into")]),
    "read-table-2": labelled,
    "scroll-text": field_with(lambda scene: scene.of("textarea")[0].value.split()[-1].strip(".,")),
    "simple-algebra": field_with(algebra),
    "simple-arithmetic": field_with(arithmetic),
    "text-transform": field_with(joined),
    "unicode-test": quoted_button,
    "visual-addition": field_with(blocks),
}
"""By task."""
