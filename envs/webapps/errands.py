"""What tasks are made of: errands, each with the way to do it through the pages.

An errand is a sentence and steps; a step says in which frame of the pages it is taken (`at`), on
which element, and what it changes. Frames are those of `pages/shell.js`. All of it is plain data
that `Task.data` can carry.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any, Literal, NamedTuple, cast

from agentrl.core.types import Json

Layout = Literal["desktop", "phone"]
Doing = Literal["click", "hold", "right", "swipe", "type", "select", "say"]
"""`say` ends the episode: by the answer, or by saying that it cannot be done."""
Data = dict[str, dict[str, Json]]
"""Tables of what the applications hold: records by key, or single values (cart, settings)."""
Frame = Mapping[str, Json]
KEYED = ("cart", "settings")
"""Tables whose keys matter; the others' are ids."""
UNCHANGING = ("goods", "people")
IGNORED = ("read",)
"""What tells where somebody looked, and is no part of any goal."""


class Change(NamedTuple):
    """A change of one entry: `to` is its new value or new fields, None that it is gone; without a
    key the entry is a new one."""

    table: str
    key: str | None
    to: Json


class Way(NamedTuple):
    """A step: in the frame `at`, `do` it on the element that reads `on`.

    One that fills in a form (`need`) is taken only if the form does not say so yet.
    """

    at: Frame
    do: Doing
    on: str
    need: Mapping[str, str] = {}
    does: tuple[Change, ...] = ()


class Errand(NamedTuple):
    """One thing that is asked for."""

    text: str
    touches: frozenset[str]
    """What it changes or relies on; errands of one task share none of it."""
    ways: tuple[Way, ...]
    draft: Mapping[str, str] = {}
    """What its form begins with, where that is not what the page itself fills in."""
    says: str | None = None
    """The answer, if it is a question."""

    @property
    def ends(self) -> Literal["done", "answer", "infeasible"]:
        """Which action ends a request whose last errand it is."""
        if self.ways[-1].do != "say":
            return "done"
        return "infeasible" if self.says is None else "answer"

    @property
    def steps(self) -> int:
        """Steps that it takes, without the one that ends the request."""
        return len(self.ways) - (self.ends != "done")

    def is_done(self, data: Data, first: Data) -> bool:
        """Whether its last step's changes hold; what ends in words is done when they are said."""
        return self.ends == "done" and all(holds(c, data, first) for c in self.ways[-1].does)

    def stack(self, skipped: int) -> list[dict[str, Json]]:
        """The frames in which somebody stands who has taken the first `skipped` steps."""
        frames: list[dict[str, Json]] = []
        for way in self.ways[: skipped + 1]:
            frame = {"app": "home", "screen": "apps"} | dict(way.at)
            same = ("app", "screen", "id")
            if not frames or any(frames[-1].get(key) != frame.get(key) for key in same):
                frames.append({})
            frames[-1] |= frame
            if way.need:
                frames[-1].setdefault("draft", dict(self.draft))
        for way in self.ways[:skipped]:
            for frame in frames:
                if way.need and matches(way.at, frame):
                    frame["draft"] = {**cast("dict[str, Json]", frame["draft"]), **way.need}
        home: dict[str, Json] = {"app": "home", "screen": "apps"}
        return frames if frames[0]["app"] == "home" else [home, *frames]


def matches(at: Frame, frame: Frame) -> bool:
    """Whether a frame is one of those that `at` describes; an open menu must be named."""
    return frame.get("menu") == at.get("menu") and all(frame.get(k) == v for k, v in at.items())


def apply(changes: Sequence[Change], data: Data) -> Data:
    """The data after the changes."""
    after = deepcopy(data)
    for table, key, to in changes:
        entries = after[table]
        if key is None:
            entries[f"new {len(entries)}"] = to
        elif to is None:
            entries.pop(key, None)
        elif isinstance(to, Mapping):
            entries[key] = {**cast("Mapping[str, Json]", entries[key]), **to}
        else:
            entries[key] = to
    return after


def holds(change: Change, data: Data, first: Data) -> bool:
    """Whether what a change brings about is there."""
    table, key, to = change
    if key is None:
        wanted = _fact(to)
        there, before = (
            sum(_fact(entry) == wanted for entry in tables[table].values())
            for tables in (data, first)
        )
        return there > before
    entry = data[table].get(key)
    if isinstance(to, Mapping):
        return isinstance(entry, Mapping) and all(entry.get(k) == v for k, v in to.items())
    return entry == to


def facts(data: Data) -> Counter[str]:
    """What matters of the data, and how often it holds: `settings wifi true`."""
    return Counter(
        f"{table} {key if table in KEYED else ''} {_fact(entry)}"
        for table, entries in data.items()
        if table not in UNCHANGING
        for key, entry in entries.items()
    )


def _fact(entry: Json) -> str:
    if isinstance(entry, Mapping):
        entry = {key: value for key, value in entry.items() if key not in IGNORED}
    return json.dumps(entry, sort_keys=True)


def packed(errands: Sequence[Errand]) -> list[Json]:
    """Errands as JSON."""
    return [
        {
            "text": errand.text,
            "draft": errand.draft,
            "ways": [[w.at, w.do, w.on, w.need, [list(c) for c in w.does]] for w in errand.ways],
            **({} if errand.says is None else {"says": errand.says}),
        }
        for errand in errands
    ]


def unpacked(packed: Json) -> tuple[Errand, ...]:
    """Errands from their JSON. Raises `TypeError`, `ValueError` or `KeyError` for other JSON."""
    entries = cast("Sequence[Mapping[str, Any]]", packed)
    return tuple(
        Errand(
            text=entry["text"],
            touches=frozenset(),
            ways=tuple(
                Way(at, do, on, need, tuple(Change(*change) for change in does))
                for at, do, on, need, does in entry["ways"]
            ),
            draft=entry["draft"],
            says=entry.get("says"),
        )
        for entry in entries
    )
