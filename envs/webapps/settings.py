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
    if isinstance(now, bool):
        return errand(page, name, not now)
    return errand(page, name, rng.choice([choice for choice in CHOICES[name] if choice != now]))


def errand(page: str, name: str, value: Json) -> Errand:
    """To give a setting another value."""
    *ways, last = way_to(page, name)
    if isinstance(value, bool):
        radios = RADIOS if name == "airplane mode" else ()
        touches = frozenset({name, *(("radio",) if radios or name in RADIOS else ())})
        does = tuple(Change("settings", radio, False) for radio in radios)
        last = last._replace(does=(Change("settings", name, value), *does))
        return Errand(f"Turn {name} {'on' if value else 'off'}.", touches, (*ways, last))
    form = {"app": "settings", "screen": "value", "id": name}
    fill = Way(form, "type" if name == "name" else "select", name, {"value": str(value)})
    save = Way(form, "click", "Save", does=(Change("settings", name, value),))
    return Errand(f"Set {name} to {value}.", frozenset({name}), (*ways, last, fill, save))


def way_to(page: str, name: str) -> tuple[Way, ...]:
    """The way to a setting, and a click on it."""
    where = {"app": "settings", "screen": "page", "id": page}
    return Way(HOME, "click", "Settings"), Way(LIST, "click", page), Way(where, "click", name)
