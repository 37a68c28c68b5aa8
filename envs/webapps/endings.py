"""Requests that end in words: questions, and what cannot be done.

Each is an errand whose last step is taken where the answer is read, or where it turns out that
there is no such thing: `says` is the answer, and None that the request is infeasible. Beside what
is asked about there is something like it, such as a mail about the same matter from somebody else.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from itertools import product
from random import Random
from typing import cast

from agentrl.envs.webapps import calendar, files, mail, settings, shop
from agentrl.envs.webapps.errands import Data, Errand, Layout, Way

Draw = Callable[[Data, Random, Layout], Errand]
NUMBER = re.compile(r"\d{1,9}(\.\d{1,9})?", re.ASCII)
UNKNOWN = {"text size": "huge", "volume": "60", "ringtone": "drums", "language": "Latin"}
"""What a setting cannot be set to."""


def is_same(said: str, wanted: str) -> bool:
    """Whether an answer is the wanted one, whatever its case, spaces and full stop; numbers are
    compared as such."""
    one, other = (" ".join(text.casefold().split()).rstrip(".!") for text in (said, wanted))
    if NUMBER.fullmatch(one) and NUMBER.fullmatch(other):
        return float(one) == float(other)
    return one == other


def _entry(data: Data, table: str, rng: Random) -> tuple[str, Mapping[str, str]]:
    key = rng.choice(list(data[table]))
    return key, cast("Mapping[str, str]", data[table][key])


def _mail_question(data: Data, rng: Random, layout: Layout) -> Errand:
    key, letter = _entry(data, "mails", rng)
    text = f"What does the mail about {letter['subject']} from {letter['from']} say?"
    page = {"app": "mail", "screen": "mail", "id": key}
    label = f"{letter['subject']} {letter['from']}"
    ways = (Way(mail.HOME, "click", "Mail"), Way(mail.LIST, "click", label), Way(page, "say", ""))
    return Errand(text, frozenset({key}), ways, says=letter["text"])


def _shop_question(data: Data, rng: Random, layout: Layout) -> Errand:
    key, good = _entry(data, "goods", rng)
    name = good["name"]
    if key in data["cart"]:
        text, there = f"How many {name} are in the cart?", Way(shop.CART, "say", f"Remove {name}")
        count = str(data["cart"][key])
        return Errand(text, frozenset({"cart"}), (*shop.TO_CART, there), says=count)
    *found, last = shop.way_to(name, is_shown=list(data["goods"]).index(key) < shop.SHOWN)
    price = f"{float(good['price']):.2f}"
    ways = (*found, last._replace(do="say"))
    return Errand(f"What does {name} cost?", frozenset(), ways, says=price)


def _calendar_question(data: Data, rng: Random, layout: Layout) -> Errand:
    _, event = _entry(data, "events", rng)
    *ways, last = calendar.way_to(event, layout)
    text = f"At what time is {event['title']} on {event['day']}?"
    touches = frozenset({event["title"]})
    return Errand(text, touches, (*ways, last._replace(do="say")), says=event["hour"])


def _settings_question(data: Data, rng: Random, layout: Layout) -> Errand:
    page = rng.choice(list(settings.PAGES))
    name = rng.choice(settings.PAGES[page])
    *ways, last = settings.way_to(page, name)
    now = data["settings"][name]
    is_switch = isinstance(now, bool)
    touches = frozenset({name, *(("radio",) if name in settings.RADIOS else ())})
    text = f"Is {name} on?" if is_switch else f"What is {name} set to?"
    says = ("yes" if now else "no") if is_switch else str(now)
    return Errand(text, touches, (*ways, last._replace(do="say")), says=says)


def _files_question(data: Data, rng: Random, layout: Layout) -> Errand:
    folder = rng.choice(files.FOLDERS)
    held = cast("Mapping[str, Mapping[str, str]]", data["files"])
    count = sum(file["folder"] == folder for file in held.values())
    home, row, _ = files.way_to(folder)
    text, ways = f"How many files are in {folder}?", (home, row._replace(do="say"))
    return Errand(text, frozenset(data["files"]), ways, says=str(count))


def _no_mail(data: Data, rng: Random, layout: Layout) -> Errand:
    letters = cast("Mapping[str, Mapping[str, str]]", data["mails"])
    there = {(letter["from"], letter["subject"]) for letter in letters.values()}
    wanted = [pair for pair in product(data["people"], mail.SUBJECTS) if pair not in there]
    sender, subject = rng.choice(wanted)
    verb = rng.choice(("Archive", "Delete", "Star"))
    ways = (Way(mail.HOME, "click", "Mail"), Way(mail.LIST, "say", ""))
    return Errand(f"{verb} the mail about {subject} from {sender}.", frozenset(), ways)


def _no_good(data: Data, rng: Random, layout: Layout) -> Errand:
    sold = {cast("Mapping[str, str]", good)["name"] for good in data["goods"].values()}
    name = rng.choice([name for name in shop.GOODS if name not in sold])
    *found, last = shop.way_to(name, is_shown=False)
    text = f"Put {rng.randint(1, 5)} {name} into the cart."
    return Errand(text, frozenset(), (*found, last._replace(do="say", on="")))


def _no_event(data: Data, rng: Random, layout: Layout) -> Errand:
    _, event = _entry(data, "events", rng)
    title = event["title"]
    day = rng.choice([day for day in calendar.DAYS if day != event["day"]])
    *ways, last = calendar.way_to({"title": title, "day": day}, layout)
    there = last._replace(do="say", on="")
    return Errand(f"Cancel {title} on {day}.", frozenset({title}), (*ways, there))


def _no_choice(data: Data, rng: Random, layout: Layout) -> Errand:
    name = rng.choice(list(UNKNOWN))
    page = next(page for page, names in settings.PAGES.items() if name in names)
    form = {"app": "settings", "screen": "value", "id": name}
    ways = (*settings.way_to(page, name), Way(form, "say", ""))
    return Errand(f"Set {name} to {UNKNOWN[name]}.", frozenset({name}), ways)


def _no_file(data: Data, rng: Random, layout: Layout) -> Errand:
    _, file = _entry(data, "files", rng)
    folder = rng.choice([folder for folder in files.FOLDERS if folder != file["folder"]])
    home, row, where = files.way_to(folder)
    text = f"{rng.choice(('Copy', 'Delete'))} {file['name']} in {folder}."
    return Errand(text, frozenset(data["files"]), (home, row, Way(where, "say", "")))


ENDINGS: Mapping[str, Mapping[str, Draw]] = {
    "question": {
        **{"mail": _mail_question, "shop": _shop_question, "calendar": _calendar_question},
        **{"settings": _settings_question, "files": _files_question},
    },
    "impossible": {
        **{"mail": _no_mail, "shop": _no_good, "calendar": _no_event},
        **{"settings": _no_choice, "files": _no_file},
    },
}
"""What an application asks in words, by what is asked for."""
