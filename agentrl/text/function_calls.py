"""One call as models write it, `name('text', 12, key=[1, 2.5])`, read by a grammar of its own.

    call   = name "(" [ argument { "," argument } ] ")"
    argument = [ name "=" ] value
    value  = text | number | "[" [ value { "," value } ] "]"        (lists do not nest)
    text   = '...' or "...", with \\\\ \\' \\" \\n \\t \\r \\xHH \\uHHHH

Nothing is evaluated; whatever is not exactly this is refused with a reason.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from agentrl.core.errors import did_you_mean
from agentrl.text.gui import MalformedError

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,40}", re.ASCII)
KEY = re.compile(r"([A-Za-z_][A-Za-z0-9_]{0,40})\s*=\s*", re.ASCII)
NUMBER = re.compile(r"[+-]?[0-9]{1,9}(\.[0-9]{0,9})?", re.ASCII)
PLAIN = re.compile(r"[^\\'\"]+")
ESCAPE = re.compile(r"\\(?:([\\'\"ntr])|x([0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4}))", re.ASCII)
ESCAPED = {"n": "\n", "t": "\t", "r": "\r"}
SPACE = re.compile(r"\s*")

Scalar = str | float
Value = Scalar | list[Scalar]


class FunctionCall(NamedTuple):
    """A call: values by position, and by name."""

    name: str
    values: tuple[Value, ...]
    named: Mapping[str, Value]

    def bound(self, signatures: Mapping[str, str]) -> dict[str, Value]:
        """The values by the names of their parameters.

        Args:
            signatures: Parameters by function, such as `"bid, button?"`; a `?` ends what may be
                left out.

        Raises:
            MalformedError: no function takes such a call.
        """
        if self.name not in signatures:
            near = did_you_mean(self.name, signatures)
            raise MalformedError(
                f"expected one of {', '.join(signatures)}, got {self.name!r}{near}"
            )
        takes = [word.strip() for word in signatures[self.name].split(",") if word]
        known = [word.removesuffix("?") for word in takes]
        if len(self.values) > len(known):
            raise MalformedError(f"{self.name}({signatures[self.name]}) got too many values")
        found = dict(zip(known, self.values, strict=False))
        for name, value in self.named.items():
            if name not in known or name in found:
                raise MalformedError(f"{self.name}({signatures[self.name]}) got {name!r}")
            found[name] = value
        for word in takes:
            if word not in found and not word.endswith("?"):
                raise MalformedError(f"{self.name} needs {word}")
        return found


def read_call(text: str) -> FunctionCall:
    """The call that is the whole text, white space around it aside. Raises `MalformedError`."""
    text = text.strip()
    name = NAME.match(text)
    if name is None or not text.startswith("(", name.end()):
        raise MalformedError(f"expected a call such as click('12'), got {text[:60]!r}")
    values: list[Value] = []
    named: dict[str, Value] = {}
    at = _behind_space(text, name.end() + 1)
    while not text.startswith(")", at):
        if values or named:
            at = _behind(text, at, ",")
        key = KEY.match(text, at)
        value, at = _value(text, key.end() if key else at)
        if key and key[1] not in named:
            named[key[1]] = value
        elif key or named:
            raise MalformedError(f"expected {name[0]}(values, then names=values)")
        else:
            values.append(value)
        at = _behind_space(text, at)
    if at + 1 < len(text):
        raise MalformedError(f"expected one call, got {text[at + 1 :][:60]!r} behind it")
    return FunctionCall(name[0], tuple(values), named)


def quoted(text: str) -> str:
    """A text as it stands in a call."""
    for raw, escaped in (("\\", "\\\\"), ("'", "\\'"), ("\n", "\\n"), ("\t", "\\t")):
        text = text.replace(raw, escaped)
    return f"'{text}'"


def _value(text: str, at: int) -> tuple[Value, int]:
    if not text.startswith("[", at):
        return _scalar(text, at)
    found: list[Scalar] = []
    at = _behind_space(text, at + 1)
    while not text.startswith("]", at):
        if found:
            at = _behind(text, at, ",")
        value, at = _scalar(text, at)
        found.append(value)
        at = _behind_space(text, at)
    return found, at + 1


def _scalar(text: str, at: int) -> tuple[Scalar, int]:
    if text.startswith(("'", '"'), at):
        return _text(text, at)
    number = NUMBER.match(text, at)
    if number is None:
        raise MalformedError(f"expected a text in quotes or a number, got {text[at : at + 40]!r}")
    return float(number[0]) if number[1] else int(number[0]), number.end()


def _text(text: str, start: int) -> tuple[str, int]:
    parts: list[str] = []
    at = start + 1
    while at < len(text) and text[at] != text[start]:
        if plain := PLAIN.match(text, at):
            parts.append(plain[0])
            at = plain.end()
        elif text[at] != "\\":
            parts.append(text[at])
            at += 1
        elif escape := ESCAPE.match(text, at):
            code = escape[2] or escape[3]
            parts.append(chr(int(code, 16)) if code else ESCAPED.get(escape[1], escape[1]))
            at = escape.end()
        else:
            raise MalformedError(f"expected an escape such as \\n, got {text[at : at + 6]!r}")
    if at >= len(text):
        raise MalformedError(f"a text in quotes does not end: {text[start : start + 40]!r}")
    return "".join(parts), at + 1


def _behind(text: str, at: int, sign: str) -> int:
    if not text.startswith(sign, at):
        raise MalformedError(f"expected {sign!r} or an end, got {text[at : at + 40]!r}")
    return _behind_space(text, at + len(sign))


def _behind_space(text: str, at: int) -> int:
    found = SPACE.match(text, at)
    return found.end() if found else at
