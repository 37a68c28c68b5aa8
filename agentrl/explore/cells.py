"""Which states are one cell: by the env's own key, or by what is shown."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import groupby
from typing import Annotated, ClassVar

from annotated_types import Ge, Le

from agentrl.core.exploring import Namer
from agentrl.core.graph import similar
from agentrl.core.registry import register
from agentrl.core.starts import digest
from agentrl.explore.embedding import Vector, cosine, embed

CLOCK = re.compile(r"\b\d{1,2}:\d{2}(:\d{2})?( ?[ap]\.?m\b\.?)?|\b\d{4}-\d{2}-\d{2}\b", re.I)
PLACE = re.compile(r"\[\d+\] ?|@?\(-?\d+(\.\d+)?, ?-?\d+(\.\d+)?\)")
"""Element numbers and coordinates, as trees of a screen give them."""
PASSING = re.compile(r"\b(focused|hovered|caret( at \d+)?)\b,? ?", re.I)


@register("cells", "exact")
@dataclass(frozen=True, kw_only=True)
class Exact:
    """One cell for each state key of the env: the simulator's own truth."""

    needs_state_key: ClassVar[bool] = True

    def namer(self) -> Namer:
        """The key itself."""
        return lambda own, text: own


@register("cells", "text")
@dataclass(frozen=True, kw_only=True)
class Text:
    """One cell for texts that are alike: the first that was as similar as `least` names it."""

    needs_state_key: ClassVar[bool] = False
    least: Annotated[float, Ge(0), Le(1)] = 0.9
    """Similarity by difflib's ratio (0..1); 1 tells any two texts apart."""

    def namer(self) -> Namer:
        """Texts are compared with the firsts of the task's cells."""
        firsts: list[str] = []

        def name(text: str) -> str:
            first = similar(text, firsts, self.least)
            if first is None:
                firsts.append(first := text)
            return digest(first)

        return _remembered(name)


@register("cells", "dom")
@dataclass(frozen=True, kw_only=True)
class Tree:
    """One cell for each tree of a screen: roles, names, states and depth, without ids, coordinates,
    clocks, focus and caret; neighbours of one role beyond `most` count by powers of two."""

    needs_state_key: ClassVar[bool] = False
    most: Annotated[int, Ge(1)] = 8
    """Elements of one role and depth, in a row, that are told apart."""

    def namer(self) -> Namer:
        """A hash of the tree's lines."""
        return lambda own, text: digest("\n".join(self._lines(text)))

    def _lines(self, text: str) -> Iterable[str]:
        lines = (CLOCK.sub("#", PASSING.sub("", PLACE.sub("", line))) for line in text.splitlines())
        for (role, depth), alike in groupby(lines, key=_role):
            row = list(alike)
            yield from row[: self.most]
            if len(row) > self.most:
                yield f"{' ' * depth}{role} x{1 << len(row).bit_length()}"


@register("cells", "bucket")
@dataclass(frozen=True, kw_only=True)
class Bucket:
    """One cell for texts whose embeddings are near: a text opens a bucket of its own where none has
    a centre as near as `least`, and else falls into the nearest. Only where nothing else can be
    had."""

    needs_state_key: ClassVar[bool] = False
    least: Annotated[float, Ge(-1), Le(1)] = 0.7
    """Cosine of a bucket's centre and what falls into it (-1 to 1)."""

    def namer(self) -> Namer:
        """Buckets are the task's own."""
        centres: dict[str, Vector] = {}

        def name(text: str) -> str:
            vector = embed(text)
            near = max(centres, key=lambda key: cosine(centres[key], vector), default=None)
            if near is not None and cosine(centres[near], vector) >= self.least:
                return near
            key = digest(text)
            centres[key] = vector
            return key

        return _remembered(name)


def _role(line: str) -> tuple[str, int]:
    bare = line.lstrip()
    return bare.partition(" ")[0], len(line) - len(bare)


def _remembered(name: Callable[[str], str]) -> Namer:
    """A text that was named once keeps its name, whatever came later."""
    known: dict[str, str] = {}

    def remembered(own: str, text: str) -> str:
        if text not in known:
            known[text] = name(text)
        return known[text]

    return remembered
