"""The actions of `text/gui.py` in few tokens: `click 12`, `click "Ok"`, `click @500,300`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from agentrl.core.errors import did_you_mean
from agentrl.core.registry import register
from agentrl.core.types import Action
from agentrl.text.calls import NOTHING, behind_thinking, json_at
from agentrl.text.gui import (
    FIELDS,
    KINDS,
    NAMES,
    GuiAction,
    Label,
    MalformedError,
    Point,
    canonical,
    names,
    optional,
    read,
)

SHORT = {
    "double_click": "double",
    "right_click": "right",
    "long_press": "hold",
}
"""Verbs that are not the action's canonical name."""
VERBS = {SHORT.get(name, name): kind for name, kind in KINDS.items()}
WORDS = {kind: verb for verb, kind in VERBS.items()}
ORDER: Mapping[str, tuple[str, ...]] = {
    "type": ("target", "text"),
    "press": ("target", "keys"),
    "scroll": ("direction", "target", "amount"),
    "swipe": ("direction", "target", "amount"),
}
"""The order in which fields are said, where it is not that of the action."""
QUOTED = frozenset({"text", "message", "reason", "value"})
POINT = re.compile(r"@([0-9]{1,4}),([0-9]{1,4})", re.ASCII)
TOKEN = re.compile(r'[^\s"]+')


class Word(NamedTuple):
    """A piece of a message: a bare word, or a text that stood in quotes."""

    text: str
    is_quoted: bool


class GuiFormat:
    """What formats for actions on a screen have in common: `said` reads one message, `spelt` writes
    one action."""

    example = ""
    """A message that is understood."""

    def said(self, text: str) -> list[GuiAction]:
        """The actions of a message, at least one. Raises `MalformedError`."""
        raise NotImplementedError

    def spelt(self, action: GuiAction) -> str:
        """The message that says an action. Raises `DataError` where there is none."""
        raise NotImplementedError

    def parse(self, text: str) -> Action | None:
        """The canonical JSON of the action, or of each."""
        try:
            found = [canonical(action) for action in self.said(behind_thinking(text).strip())]
        except MalformedError:
            return None
        return found[0] if len(found) == 1 else found

    def why(self, text: str) -> str:
        """The reason why `parse` finds no action; empty if it finds one."""
        try:
            self.said(behind_thinking(text).strip())
        except MalformedError as error:
            return str(error)
        return ""

    def write(self, action: Action) -> str:
        """The message for canonical JSON. Raises `DataError` if this format cannot say it."""
        return "\n".join(
            self.spelt(read(text)) for text in ([action] if isinstance(action, str) else action)
        )

    def hint(self) -> str:
        """What a reply must be."""
        return f"Reply with one action such as {self.example} and nothing else."


@register("actions", "gui")
@dataclass(frozen=True, kw_only=True)
class GuiWords(GuiFormat):
    """One action on a screen in few words: `click 12`, `type 5 "milk"`, `scroll down`, `done`."""

    system: str = ""
    """A system message that opens every episode; empty for none."""

    example = 'click 12, click @500,300 or type 5 "milk"'

    def said(self, text: str) -> list[GuiAction]:
        """The one action that the whole message is."""
        verb, *rest = words(text) or [Word("", is_quoted=False)]
        kind = None if verb.is_quoted else VERBS.get(verb.text)
        if kind is None:
            near = did_you_mean(verb.text[:40], VERBS)
            raise MalformedError(
                f"expected one of {', '.join(VERBS)}, got {verb.text[:40]!r}{near}"
            )
        given: dict[str, object] = {}
        order = ORDER.get(verb.text, names(kind))
        for at, name in enumerate(order):
            is_spare = name in optional(kind)
            needed = sum(other not in optional(kind) for other in order[at + 1 :])
            if is_spare and len(rest) <= needed:
                continue
            reads = READERS.get(name, _quoted if name in QUOTED else _bare)
            value, used = reads(rest, name, is_spare)
            if used:
                given[name] = FIELDS[name](value)
                rest = rest[used:]
        if rest:
            raise MalformedError(f"{verb.text} ends before {rest[0].text[:40]!r}")
        return [kind(**given)]

    def spelt(self, action: GuiAction) -> str:
        """The verb and what it needs, in the order in which it is read."""
        kind = type(action)
        verb = WORDS[kind]
        said = [verb]
        for name in ORDER.get(NAMES[kind], names(kind)):
            value = getattr(action, name)
            if name not in optional(kind) or value != optional(kind)[name]:
                said.append(_spelt(name, value))
        return " ".join(said)


def words(text: str) -> list[Word]:
    """The words of a one-line message, JSON strings among them. Raises `MalformedError`."""
    found: list[Word] = []
    at = 0
    while at < len(text):
        if text[at] == " ":
            at += 1
        elif text[at] == '"':
            value, end = json_at(text, at)
            if value is NOTHING or not isinstance(value, str):
                raise MalformedError(f"a text in quotes does not end: {text[at : at + 40]!r}")
            found.append(Word(value, is_quoted=True))
            at = end
        elif token := TOKEN.match(text, at):
            found.append(Word(token[0], is_quoted=False))
            at = token.end()
        else:
            raise MalformedError(f"expected one line, got {text[at : at + 40]!r} behind it")
    return found


def _bare(rest: list[Word], name: str, is_spare: bool) -> tuple[object, int]:
    """A word without quotes."""
    if not rest or rest[0].is_quoted:
        got = f"the quoted {rest[0].text[:40]!r}" if rest else "nothing"
        raise MalformedError(f"expected {name}, got {got}")
    return rest[0].text, 1


def _quoted(rest: list[Word], name: str, is_spare: bool) -> tuple[object, int]:
    """A text in quotes."""
    if not rest or not rest[0].is_quoted:
        got = repr(rest[0].text[:40]) if rest else "nothing"
        raise MalformedError(f"expected a {name} in quotes, got {got}")
    return rest[0].text, 1


def _target(rest: list[Word], name: str, is_spare: bool) -> tuple[object, int]:
    """An element, its text in quotes, or `@x,y`; before `by`, a spare one is left out."""
    if rest and rest[0].is_quoted:
        return Label(rest[0].text), 1
    value, used = _bare(rest, name, is_spare)
    if is_spare and value == "by":
        return None, 0
    found = POINT.fullmatch(str(value))
    return (Point(int(found[1]), int(found[2])) if found else value), used


def _amount(rest: list[Word], name: str, is_spare: bool) -> tuple[object, int]:
    """`by` and a number."""
    if len(rest) < 2 or rest[0].text != "by" or not re.fullmatch(r"[0-9]{1,5}", rest[1].text):
        raise MalformedError(f"expected an amount such as by 300, got {rest[0].text[:40]!r}")
    return int(rest[1].text), 2


READERS: Mapping[str, Callable[[list[Word], str, bool], tuple[object, int]]] = {
    "target": _target,
    "start": _target,
    "end": _target,
    "amount": _amount,
}


def _spelt(name: str, value: object) -> str:
    if isinstance(value, Point):
        return f"@{value.x},{value.y}"
    if isinstance(value, Label):
        return json.dumps(value.text, ensure_ascii=False)
    if name == "amount":
        return f"by {value}"
    return json.dumps(value, ensure_ascii=False) if name in QUOTED else str(value)
