"""Errands of the application `settings`."""

from __future__ import annotations

from random import Random

from agentrl.core.types import Json
from agentrl.envs.webapps.errands import Change, Data, Errand, Layout, Way

PAGES = {
    "Network": ("wifi", "bluetooth", "airplane mode", "hotspot"),
    "Display": ("dark mode", "text size", "auto rotate"),
    "Sound": ("mute", "volume", "ringtone"),
    "Account": ("name", "language", "backup"),
}
CHOICES = {
    "text size": ("small", "medium", "large"),
    "volume": ("0", "25", "50", "75", "100"),
    "ringtone": ("bell", "birds", "piano", "waves"),
    "language": ("English", "French", "German", "Spanish"),
    "name": ("alex", "robin", "sam", "kim", "jo"),
}
RADIOS = ("wifi", "bluetooth")
"""What the airplane mode turns off."""
HOME = {"app": "home"}
LIST = {"app": "settings", "screen": "list"}


def furnish(data: Data, rng: Random, count: int) -> None:
    """Every setting at random; the airplane mode is off."""
    names = [name for page in PAGES.values() for name in page]
    data["settings"] = {
        name: rng.choice(CHOICES[name]) if name in CHOICES else rng.random() < 0.5 for name in names
    }
    data["settings"]["airplane mode"] = False


def draw(data: Data, rng: Random, layout: Layout) -> Errand:
    """Turn something on or off, or choose something else."""
    page = rng.choice(list(PAGES))
    name = rng.choice(PAGES[page])
    now = data["settings"][name]
    value: Json = not now
    if not isinstance(now, bool):
        value = rng.choice([choice for choice in CHOICES[name] if choice != now])
    return errand(page, name, value)


def errand(page: str, name: str, value: Json) -> Errand:
    """To give a setting another value."""
    *ways, last = way_to(page, name)
    if isinstance(value, bool):
        does = [Change("settings", name, value)]
        if name == "airplane mode":
            does += [Change("settings", radio, False) for radio in RADIOS]
        is_radio = name in RADIOS or name == "airplane mode"
        touches = frozenset({name, *(("radio",) if is_radio else ())})
        last = last._replace(does=tuple(does))
        return Errand(f"Turn {name} {'on' if value else 'off'}.", touches, (*ways, last))
    form = {"app": "settings", "screen": "value", "id": name}
    fill = (
        last,
        Way(form, "type" if name == "name" else "select", name, {"value": str(value)}),
        Way(form, "click", "Save", does=(Change("settings", name, value),)),
    )
    return Errand(f"Set {name} to {value}.", frozenset({name}), (*ways, *fill))


def reached(first: Data, now: Data) -> list[Errand]:
    """What would have asked for the changes that were made."""
    return [
        errand(page, name, now["settings"][name])
        for page, names in PAGES.items()
        for name in names
        if now["settings"][name] != first["settings"][name]
    ]


def way_to(page: str, name: str) -> tuple[Way, ...]:
    """The way to a setting, and a click on it."""
    where = {"app": "settings", "screen": "page", "id": page}
    return Way(HOME, "click", "Settings"), Way(LIST, "click", page), Way(where, "click", name)
