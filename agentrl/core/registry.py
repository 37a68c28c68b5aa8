"""Names for parts: `@register("advantage", "rloo")` makes a class reachable from YAML.

A slot's modules are found by walking its folder, so there is no list to extend. Other packages add
parts through the entry-point group `agentrl.plugins`, which is loaded only when a name is not
found.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from types import ModuleType
from typing import TypeVar

from agentrl.core.errors import ConfigError, UnknownNameError, did_you_mean

Part = TypeVar("Part", bound=type)

FOLDERS: dict[str, str] = {
    "env": "agentrl.envs",
    "reward": "agentrl.rewards",
    "renderer": "agentrl.text.renderer",
    "context": "agentrl.text.context",
    "actions": "agentrl.text.actions",
    "engine": "agentrl.engines",
    "strategy": "agentrl.rollout.strategies",
    "advantage": "agentrl.algo.advantages",
    "loss": "agentrl.algo.losses",
    "aggregate": "agentrl.algo.aggregate",
    "kl": "agentrl.algo.kl",
    "entropy": "agentrl.algo.entropy",
    "mismatch": "agentrl.algo.mismatch",
    "filter": "agentrl.algo.filters",
    "curriculum": "agentrl.algo.curricula",
    "explore": "agentrl.explore",
    "selector": "agentrl.explore.selectors",
    "bonus": "agentrl.explore.bonuses",
    "start": "agentrl.explore.starts",
    "cells": "agentrl.explore.cells",
    "proposer": "agentrl.explore.proposers",
    "scorer": "agentrl.train.trie",
    "parallel": "agentrl.train.parallel",
    "track": "agentrl.track",
}
"""Slot name -> the package (or single module) whose files hold its parts."""

_parts: dict[str, dict[str, type]] = {slot: {} for slot in FOLDERS}
_walked: set[str] = set()


def register(slot: str, name: str) -> Callable[[Part], Part]:
    """Give a class the name by which configs ask for it.

    Raises:
        ConfigError: the slot is unknown or the name is taken by another class.
    """
    if slot not in _parts:
        raise ConfigError(
            f"no slot is called {slot!r}{did_you_mean(slot, _parts)} (known: {', '.join(_parts)})"
        )

    def add(part: Part) -> Part:
        taken = _parts[slot].get(name)
        if taken is not None and taken.__qualname__ != part.__qualname__:
            raise ConfigError(
                f"{slot} {name!r} is registered twice: {taken.__module__} and {part.__module__}"
            )
        _parts[slot][name] = part
        return part

    return add


def find(slot: str, name: str) -> type:
    """The class registered as `name`.

    Raises:
        UnknownNameError: nobody registered it; the message names the nearest that exists.
    """
    if name not in _parts[slot]:
        _walk(slot)
    if name not in _parts[slot]:
        _load_plugins()
    if name not in _parts[slot]:
        known = names(slot)
        raise UnknownNameError(
            f"{slot}: no {slot} is called {name!r}{did_you_mean(name, known)} "
            f"(known: {', '.join(known) or 'none'})"
        )
    return _parts[slot][name]


def names(slot: str) -> list[str]:
    """Every name of a slot, sorted."""
    _walk(slot)
    return sorted(_parts[slot])


def slot_of(part: type) -> tuple[str, str] | None:
    """The (slot, name) under which a class is registered."""
    for slot, known in _parts.items():
        for name, candidate in known.items():
            if candidate is part:
                return slot, name
    return None


def _walk(slot: str) -> None:
    if slot in _walked:
        return
    root = importlib.import_module(FOLDERS[slot])
    for module in _modules_below(root, slot):
        importlib.import_module(module)
    _walked.add(slot)


def _modules_below(root: ModuleType, slot: str) -> Iterator[str]:
    """Modules of a slot's folder; of a sub-folder only the one called like the slot, such as
    `env.py` (the rest is support)."""
    for info in pkgutil.iter_modules(getattr(root, "__path__", [])):
        name = f"{root.__name__}.{info.name}"
        if not info.ispkg:
            yield name
        elif importlib.util.find_spec(f"{name}.{slot}") is not None:
            yield f"{name}.{slot}"


def _load_plugins() -> None:
    for point in entry_points(group="agentrl.plugins"):
        point.load()
