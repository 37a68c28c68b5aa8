"""Requests for the address book, what they come to, and the next action that fulfils them.

A state of the book is the dict that `window/app.py` speaks of; a request is a list of changes, each
said in a sentence. The solver looks at the state alone, so that it also knows what to do from
elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from random import Random
from typing import Any, NamedTuple, cast

from agentrl.core.starts import Beginning, Starts, digest
from agentrl.core.types import Json

NAMES = (
    *("ann", "ben", "cleo", "dan", "eva", "finn", "gwen", "hal", "ida", "jon", "kim", "leo"),
    *("mia", "ned", "ola", "pam", "quin", "ria", "sam", "tess", "uma", "vic", "wes", "zoe"),
)
KINDS = ("home", "work")
BLANK: Mapping[str, Json] = {"name": "", "phone": "", "kind": "home", "star": False}
Contact = dict[str, Any]
State = Mapping[str, Any]


class Move(NamedTuple):
    """An action of the solver: on the widget of a key, with a text to type into it perhaps."""

    key: str
    text: str | None = None


def begun(contacts: Sequence[Contact]) -> dict[str, Json]:
    """The state in which an episode begins."""
    held = cast("Json", [dict(one) for one in contacts])
    return {"contacts": held, "selected": None, "draft": dict(BLANK), "focus": ""}


def facts(contacts: Sequence[Contact]) -> list[str]:
    """What matters of the contacts: not their order."""
    return sorted(json.dumps(one, sort_keys=True) for one in contacts)


# --- requests -------------------------------------------------------------------------------------


def _phone(rng: Random) -> str:
    return f"555{rng.randrange(10_000):04d}"


def _delete(rng: Random, contacts: list[Contact], one: Contact) -> str:
    contacts.remove(one)
    return f"Delete {one['name']}."


def _call(rng: Random, contacts: list[Contact], one: Contact) -> str:
    before = one["phone"]
    while one["phone"] == before:
        one["phone"] = _phone(rng)
    return f"Set the phone of {one['name']} to {one['phone']}."


def _star(rng: Random, contacts: list[Contact], one: Contact) -> str:
    one["star"] = not one["star"]
    return f"{'Star' if one['star'] else 'Unstar'} {one['name']}."


def _move(rng: Random, contacts: list[Contact], one: Contact) -> str:
    one["kind"] = KINDS[one["kind"] == "home"]
    return f"Move {one['name']} to {one['kind']}."


def _add(rng: Random, contacts: list[Contact], one: Contact) -> str:
    known = {c["name"] for c in contacts} | {one["name"]}
    name = rng.choice([n for n in NAMES if n not in known])
    new = {"name": name, "phone": _phone(rng), "kind": rng.choice(KINDS), "star": False}
    contacts.append(new)
    return f"Add {name} with the phone {new['phone']} at {new['kind']}."


ERRANDS: Sequence[Callable[[Random, list[Contact], Contact], str]] = (
    *(_delete, _call, _star, _move, _add),
)


@cache
def starts(contacts: int, errands: int) -> Starts:
    """Distinct beginnings with so many contacts and errands, each errand about another contact."""

    def begin(seed: int) -> Beginning:
        rng = Random(f"desktop {contacts} {errands} {seed}")
        held: list[Contact] = [
            {
                "name": name,
                "phone": _phone(rng),
                "kind": rng.choice(KINDS),
                "star": rng.random() < 0.3,
            }
            for name in rng.sample(NAMES, contacts)
        ]
        wanted = [dict(one) for one in held]
        about = rng.sample(wanted, errands)
        goal = " ".join(rng.choice(ERRANDS)(rng, wanted, one) for one in about)
        data = cast("Mapping[str, Json]", {"contacts": held, "wanted": wanted})
        return Beginning(digest(json.dumps([goal, held])), goal, data)

    return Starts(begin, place="env.contacts", what=f"desktop with {contacts} contacts")


# --- the solver -----------------------------------------------------------------------------------


def advise(state: State, wanted: Sequence[Contact]) -> Move | None:
    """The next action; None once the book is as it should be. What was lost by mistake is added
    again."""
    held: list[Contact] = list(state["contacts"])
    goals = {one["name"]: one for one in wanted}
    selected = state["selected"]
    for at, one in enumerate(held):
        is_twin = one["name"] in {other["name"] for other in held[:at]}
        if one["name"] not in goals or is_twin:
            return Move("delete") if at == selected else Move(f"row {at}")
    for at, one in enumerate(held):
        goal = goals[one["name"]]
        if one != goal:
            return _filled(state["draft"], goal) if at == selected else Move(f"row {at}")
    names = {one["name"] for one in held}
    for goal in wanted:
        if goal["name"] not in names:
            return Move("new") if selected is not None else _filled(state["draft"], goal)
    return None


def _filled(draft: Mapping[str, Any], goal: Contact) -> Move:
    """The next action on a form that should hold `goal`; saving comes last."""
    for name in ("name", "phone"):
        if draft[name] != goal[name]:
            return Move(name, str(goal[name]))
    if draft["kind"] != goal["kind"]:
        return Move(str(goal["kind"]))
    return Move("save") if draft["star"] == goal["star"] else Move("star")
