"""The application `mail`: letters that came, and letters to people who are known."""

from __future__ import annotations

from random import Random
from typing import Annotated

from agentrl.envs.tools.toolbox import Record, Tool, World, found, new

PEOPLE = ("ann", "bob", "cleo", "dan", "eva", "finn", "gina", "hugo", "ida", "jan")
SUBJECTS = ("rent", "trip", "invoice", "party", "garden", "football", "choir", "books")
TEXTS = ("yes", "no", "maybe", "soon", "sorry", "tomorrow", "agreed", "welcome")

Name = Annotated[str, "The id of a mail, as mail_inbox gives it."]
Person = Annotated[str, "Somebody whom mail_people names."]
Words = Annotated[str, "What it is to say."]


def people(world: World) -> str:
    """List the people who can be written to."""
    return " ".join(world["people"]) or "nobody"


def inbox(world: World) -> str:
    """List the mails that came: id, sender and subject of each."""
    there = sorted(world["inbox"].items())
    return ", ".join(f"{k} {m['sender']} about {m['subject']}" for k, m in there) or "no mail"


def read(world: World, mail: Name) -> str:
    """Read a mail."""
    return str(found(world, "inbox", mail)["text"])


def send(world: World, to: Person, text: Words) -> str:
    """Write to somebody."""
    found(world, "people", to)
    return _send(world, {"to": to, "about": "", "text": text})


def answer(world: World, mail: Name, text: Words) -> str:
    """Answer a mail."""
    letter = found(world, "inbox", mail)
    return _send(world, {"to": letter["sender"], "about": letter["subject"], "text": text})


def forward(world: World, mail: Name, to: Person) -> str:
    """Send a mail on to somebody."""
    letter = found(world, "inbox", mail)
    found(world, "people", to)
    return _send(world, {"to": to, "about": letter["subject"], "text": letter["text"]})


def delete(world: World, mail: Name) -> str:
    """Delete a mail."""
    found(world, "inbox", mail)
    del world["inbox"][mail]
    return "deleted"


TOOLS = tuple(Tool("mail", run) for run in (people, inbox, read, send, answer, forward, delete))


def furnish(world: World, rng: Random, count: int) -> None:
    """Put people and mails there, no two mails of one sender about the same."""
    world["people"] = {name: {} for name in sorted(rng.sample(PEOPLE, 6))}
    pairs = rng.sample([(s, about) for s in world["people"] for about in SUBJECTS], count)
    for number, (sender, about) in zip(rng.sample(range(11, 100), count), pairs, strict=True):
        text = rng.choice(TEXTS)
        world["inbox"][f"m{number}"] = {"sender": sender, "subject": about, "text": text}


def draw(world: World, rng: Random) -> Record:
    """A mail, somebody, somebody who is not known, a subject and a word."""
    drawn: Record = {"word": rng.choice(TEXTS), "topic": rng.choice(SUBJECTS)}
    drawn["stranger"] = rng.choice([name for name in PEOPLE if name not in world["people"]])
    drawn["person"] = rng.choice(list(world["people"]))
    if world["inbox"]:
        mail = rng.choice(sorted(world["inbox"]))
        drawn |= {"mail": mail, **world["inbox"][mail]}
    return drawn


def _send(world: World, letter: Record) -> str:
    new(world, "sent", letter)
    return "sent"
