"""Programs that say what to do on a screen without naming an element's number.

A demonstration says "click 5"; that it meant the button, or what stands behind the label, or what
the goal quotes, is a constraint that holds on other screens too (workflow-guided exploration, Liu
et al. 2018, arXiv 1802.08802). A screen is read from what the env shows: lines `[5] button Login`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

from agentrl.core.graph import as_text
from agentrl.core.types import Action, Json

LINE = re.compile(
    r"\[(?P<ref>[A-Za-z]{0,8}[0-9]{1,9})\] (?P<tag>\S+)(?P<text>.*?)"
    r'(?P<value> = ".*?")?(?P<states> \([^()]*\))?'
)
QUOTED = re.compile(r'"([^"]*)"')
STRINGS = ("text", "value")
"""Fields of an action that hold a text."""


class Shown(NamedTuple):
    """An element as a line shows it."""

    ref: str
    tag: str
    text: str


@dataclass(frozen=True)
class Screen:
    """What is shown, the goal, and the element that was acted on last."""

    elements: tuple[Shown, ...]
    goal: str
    last: str = ""

    @property
    def fields(self) -> tuple[str, ...]:
        """What the goal quotes."""
        return tuple(QUOTED.findall(self.goal))


def read_screen(text: str, goal: str, last: str = "") -> Screen:
    """The screen that an observation shows; lines that show no element are passed over."""
    found = [m for line in text.splitlines() if (m := LINE.fullmatch(line))]
    elements = tuple(Shown(m["ref"], m["tag"], m["text"].strip()) for m in found)
    return Screen(elements, goal, last)


def goal_of(text: str) -> str:
    """What is said above the first element."""
    above = []
    for line in text.splitlines():
        if LINE.fullmatch(line):
            break
        above.append(line)
    return "\n".join(above)


class Constraint(NamedTuple):
    """A set of elements, by `kind` and `word`."""

    kind: str
    word: str = ""

    def holds(self, at: int, screen: Screen) -> bool:
        """Whether the element at this place belongs to the set."""
        return SETS[self.kind](screen, at, self.word)

    def __str__(self) -> str:
        return self.kind + (f" {self.word!r}" if self.word else "")


def _has_tag(screen: Screen, at: int, word: str) -> bool:
    return screen.elements[at].tag == word


def _has_text(screen: Screen, at: int, word: str) -> bool:
    return screen.elements[at].text == word


def _is_quoted(screen: Screen, at: int, word: str) -> bool:
    own = screen.fields
    return int(word) < len(own) and screen.elements[at].text == own[int(word)]


def _is_said(screen: Screen, at: int, word: str) -> bool:
    text = screen.elements[at].text
    return bool(text) and re.search(rf"(?<!\w){re.escape(text)}(?!\w)", screen.goal) is not None


def _is_behind(screen: Screen, at: int, word: str) -> bool:
    return at > 0 and screen.elements[at - 1].text == word


def _is_last(screen: Screen, at: int, word: str) -> bool:
    return screen.elements[at].ref == screen.last


SETS: Mapping[str, Callable[[Screen, int, str], bool]] = {
    "tag": _has_tag,
    "text": _has_text,
    "quoted": _is_quoted,
    "said": _is_said,
    "behind": _is_behind,
    "last": _is_last,
}
"""By tag; by exact text; the goal's quoted text number `word`; any text that the goal says; what
follows the element with a text; what was acted on last."""


class Program(NamedTuple):
    """An action whose target is a set of elements, and whose text may be one that the goal quotes.

    `shape` is the action's JSON without target and text, or an action that is no JSON. `string` is
    the text of its field `key`, or the number of a text that the goal quotes. `by_text` names
    elements by what they read, where they read something, as the demonstration did.
    """

    shape: str
    among: Constraint | None = None
    key: str = ""
    string: int | str = ""
    by_text: bool = False

    def actions(self, screen: Screen) -> list[Action]:
        """All actions that satisfy it here, as canonical JSON; none where nothing does."""
        said = _object(self.shape)
        if said is None:
            return [self.shape]
        if isinstance(self.string, int):
            if self.string >= len(screen.fields):
                return []
            said[self.key] = screen.fields[self.string]
        elif self.key:
            said[self.key] = self.string
        if self.among is None:
            return [_canonical(said)]
        held = [e for at, e in enumerate(screen.elements) if self.among.holds(at, screen)]
        return [_canonical({**said, "target": self._named(e)}) for e in held]

    def _named(self, element: Shown) -> Json:
        return {"text": element.text} if self.by_text and element.text else element.ref

    def __str__(self) -> str:
        said = _object(self.shape) or {"action": self.shape}
        quoted = f"quoted {self.string}" if isinstance(self.string, int) else repr(self.string)
        inside = ", ".join(str(part) for part in (self.among, self.key and quoted) if part)
        return f"{said['action']}({inside})"


def programs_for(action: Action, screen: Screen) -> list[Program]:
    """Every program that this action satisfies here."""
    said = _object(action)
    if said is None:
        return [Program(as_text(action))]
    key = next((name for name in STRINGS if name in said), "")
    text = str(said.pop(key)) if key else ""
    strings: list[int | str] = [n for n, field in enumerate(screen.fields) if key and field == text]
    target = said.get("target")
    by_text = isinstance(target, Mapping)
    reads = target["text"] if isinstance(target, Mapping) else None
    at = next(
        (i for i, e in enumerate(screen.elements) if target == e.ref or reads == e.text), None
    )
    sets: list[Constraint | None] = [None]
    if at is not None:
        del said["target"]
        sets = [*_sets_with(at, screen)]
    shape = _canonical(said)
    return [
        Program(shape, among, key, string, by_text) for among in sets for string in [*strings, text]
    ]


def _sets_with(at: int, screen: Screen) -> Iterator[Constraint]:
    element = screen.elements[at]
    words: Mapping[str, Sequence[str]] = {
        "tag": [element.tag],
        "text": [element.text] if element.text else [],
        "quoted": [str(n) for n, _ in enumerate(screen.fields)],
        "behind": [screen.elements[at - 1].text] if at and screen.elements[at - 1].text else [],
    }
    for kind in SETS:
        for word in words.get(kind, [""]):
            if SETS[kind](screen, at, word):
                yield Constraint(kind, word)


def target_of(action: Action) -> str:
    """The element that an action is on, by its number; empty for none."""
    target = (_object(action) or {}).get("target", "")
    return target if isinstance(target, str) else ""


def _object(action: Action) -> dict[str, Json] | None:
    """The action's JSON; None where it is none."""
    try:
        found = json.loads(as_text(action))
    except ValueError:
        return None
    return cast("dict[str, Json]", found) if isinstance(found, dict) else None


def _canonical(said: Mapping[str, Json]) -> str:
    return json.dumps(said, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
