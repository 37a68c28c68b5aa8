"""Errands of the application `mail`."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import cast

from agentrl.core.types import Json
from agentrl.envs.webapps.errands import Change, Data, Doing, Errand, Layout, Way

PEOPLE = ("ann", "bob", "cleo", "dan", "eva", "finn", "gina", "hugo")
SUBJECTS = ("rent", "trip", "invoice", "party", "garden", "football", "choir", "books")
TEXTS = ("yes", "no", "maybe", "soon", "sorry", "tomorrow", "agreed", "welcome")


def furnish(data: Data, rng: Random, count: int) -> None:
    """People, and letters of which no two have the same sender and subject."""
    names = sorted(rng.sample(PEOPLE, 5))
    data["people"] = {name: name for name in names}
    pairs = rng.sample([(name, about) for name in names for about in SUBJECTS], count)
    data["mails"] = {
        f"m{number}": {
            "box": "inbox",
            "from": sender,
            "to": "me",
            "subject": about,
            "text": rng.choice(TEXTS),
            "star": rng.random() < 0.2,
            "read": False,
        }
        for number, (sender, about) in enumerate(pairs, 1)
    }


def draw(data: Data, rng: Random, layout: Layout) -> Errand:
    """Star, archive, delete, answer, forward or write a mail."""
    key = rng.choice(list(data["mails"]))
    mail = cast("Mapping[str, str]", data["mails"][key])
    kind = rng.choice(("star", "archive", "delete", "reply", "forward", "write"))
    if kind in ("star", "archive", "delete"):
        return _keep(kind, key, mail, layout)
    word, person = rng.choice(TEXTS), rng.choice(sorted(data["people"]))
    about = f"the mail about {mail['subject']} from {mail['from']}"
    start = _row(mail, "click")
    read = {"app": "mail", "screen": "mail", "id": key}
    if kind == "reply":
        draft = {"to": mail["from"], "subject": mail["subject"], "text": ""}
        ways = [*start, Way(read, "click", "Reply")]
        text, said = f'Answer "{word}" to {about}.', draft | {"text": word}
    elif kind == "forward":
        draft = {"to": "nobody", "subject": mail["subject"], "text": mail["text"]}
        ways = [*start, Way(read, "click", "Forward")]
        text, said = f"Forward {about} to {person}.", draft | {"to": person}
    else:
        draft = {"to": "nobody", "subject": "", "text": ""}
        ways = [start[0], Way(LIST, "click", "Compose")]
        said = {"to": person, "subject": rng.choice(SUBJECTS), "text": word}
        text = f'Write "{word}" about {said["subject"]} to {person}.'
    return Errand(text, frozenset({key, f"to {said['to']}"}), (*ways, *_send(said, draft)), draft)


HOME = {"app": "home"}
LIST = {"app": "mail", "screen": "list", "box": "inbox"}
FORM = {"app": "mail", "screen": "compose"}


def _row(mail: Mapping[str, str], do: Doing) -> list[Way]:
    label = f"{mail['subject']} {mail['from']}"
    return [Way(HOME, "click", "Mail"), Way(LIST, do, label)]


def _keep(kind: str, key: str, mail: Mapping[str, str], layout: Layout) -> Errand:
    """What is done with a mail itself; a swipe deletes, a menu has the rest."""
    verb = "unstar" if kind == "star" and mail["star"] else kind
    box = {"archive": "archive", "delete": "trash"}
    to: Json = {"star": not mail["star"]} if kind == "star" else {"box": box[kind]}
    does = (Change("mails", key, to),)
    text = f"{verb.title()} the mail about {mail['subject']} from {mail['from']}."
    if kind == "delete" and layout == "phone":
        home, row = _row(mail, "swipe")
        return Errand(text, frozenset({key}), (home, row._replace(does=does)))
    home, row = _row(mail, "hold" if layout == "phone" else "right")
    last = Way(LIST | {"menu": key}, "click", verb.title(), does=does)
    return Errand(text, frozenset({key}), (home, row, last))


def _send(said: Mapping[str, str], draft: Mapping[str, str]) -> list[Way]:
    """Fill in what the form does not say yet, and send it."""
    letter: Json = {"box": "sent", "from": "me", **said, "star": False, "read": True}
    labels = {"to": "To", "subject": "Subject", "text": "Text"}
    fill = [
        Way(FORM, "select" if name == "to" else "type", labels[name], {name: said[name]})
        for name in labels
        if said[name] != draft[name]
    ]
    return [*fill, Way(FORM, "click", "Send", does=(Change("mails", None, letter),))]
