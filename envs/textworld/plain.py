"""What an agent sees, written from the facts of a game in as few words as can be.

    studio | exits south , west | table holds knife , cookbook | floor coin | you have nothing

The package's own text for it is some five times as long, and needs the game to be compiled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

WAYS = {
    "north_of": ("north", "south"),
    "south_of": ("south", "north"),
    "west_of": ("west", "east"),
    "east_of": ("east", "west"),
}
"""`north_of(a, b)`: a is to the north of b."""
TREATED = ("fried", "roasted", "grilled", "burned", "chopped", "sliced", "diced")
SHUT = ("open", "closed", "locked")
PORTABLE = ("o", "k", "f", "meal")
"""The package's types of what can be carried."""


class Fact(NamedTuple):
    """`in(carrot, fridge)`."""

    name: str
    things: tuple[str, ...]


class Scene(NamedTuple):
    """All that is true, by the names that players know."""

    facts: tuple[Fact, ...]
    """In an order that is the same in every process. P is the player, I what they carry."""
    portable: frozenset[str]

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> Scene:
        """What is true in a state of the package's engine."""
        infos = state["game"].infos
        names = {key: str(info.name) if info.name else key for key, info in infos.items()}
        facts = (
            Fact(one.name, tuple(names.get(v.name, v.name) for v in one.arguments))
            for one in state["_facts"]
        )
        portable = frozenset(names[key] for key, info in infos.items() if info.type in PORTABLE)
        return cls(tuple(sorted(facts)), portable)

    @property
    def room(self) -> str:
        """Where the player is."""
        return next(f.things[1] for f in self.facts if f.name == "at" and f.things[0] == "P")

    def held(self, holder: str) -> list[str]:
        """What is in or on something; `I`: what the player carries."""
        return [f.things[0] for f in self.facts if f.name in ("in", "on") and f.things[1] == holder]

    def said(self, thing: str, words: Sequence[str]) -> str:
        """Those of the words that are true of a thing."""
        return " ".join(f.name for f in self.facts if f.name in words and f.things == (thing,))


def look(scene: Scene) -> str:
    """Where the player is, which ways lead on, what is here, and what they carry."""
    room, ways = scene.room, dict(_ways(scene))
    parts = [room, "exits " + " , ".join(f"{way}{ways[way]}" for way in sorted(ways))]
    at = [fact.things for fact in scene.facts if fact.name == "at"]
    here = [thing for thing, where in at if where == room and thing != "P"]
    parts += [_furniture(thing, scene) for thing in here if thing not in scene.portable]
    loose = [_treated(thing, scene) for thing in here if thing in scene.portable]
    carried = [_treated(thing, scene) for thing in scene.held("I")]
    parts += ["floor " + " , ".join(loose)] if loose else []
    return " | ".join([*parts, "you have " + (" , ".join(carried) or "nothing")])


def _ways(scene: Scene) -> list[tuple[str, str]]:
    """The directions that lead on, and the doors there."""
    room, ways = scene.room, list[tuple[str, str]]()
    for fact in scene.facts:
        if fact.name in WAYS and room in fact.things:
            to = fact.things[0] if fact.things[1] == room else fact.things[1]
            way = WAYS[fact.name][0 if to == fact.things[0] else 1]
            ways.append((way, _door(room, to, scene)))
    return ways


def _door(room: str, to: str, scene: Scene) -> str:
    links = [f.things for f in scene.facts if f.name == "link"]
    doors = [door for one, door, other in links if (one, other) == (room, to)]
    return "".join(f" by {scene.said(door, SHUT)} {door}" for door in doors)


def _furniture(thing: str, scene: Scene) -> str:
    shut = scene.said(thing, SHUT)
    held = [_treated(one, scene) for one in scene.held(thing)] if shut in ("", "open") else []
    holds = f"holds {' , '.join(held)}" if held else ""
    return " ".join(filter(None, (shut, thing, holds)))


def _treated(thing: str, scene: Scene) -> str:
    return f"{scene.said(thing, TREATED)} {thing}".strip()
