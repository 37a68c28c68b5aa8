"""Between Gymnasium's spaces and words: observations written out, actions read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np

from agentrl.core.errors import ConfigError

if TYPE_CHECKING:
    from gymnasium import Space

MOST_NUMBERS = 64
"""Entries of a Box, MultiBinary or MultiDiscrete that are still written out."""


class ActionWords(Protocol):
    """How the actions of a space are said."""

    names: tuple[str, ...]
    """Every action, in the order of its number; empty where they are too many to list."""

    def read(self, text: str) -> object | None:
        """The space's own action, or None if `text` says none."""
        ...


class Named:
    """Discrete actions by name."""

    def __init__(self, names: Sequence[str], first: int) -> None:
        self.names = tuple(names)
        self._numbers = {name: first + i for i, name in enumerate(names)}

    def read(self, text: str) -> int | None:
        """The number of the name."""
        return self._numbers.get(text)


class Numbers:
    """MultiDiscrete and MultiBinary actions as numbers between spaces, as in `0 2 1`."""

    names: tuple[str, ...] = ()

    def __init__(self, space: Space[object]) -> None:
        self._space = space

    def read(self, text: str) -> object | None:
        """The numbers as an array that the space contains."""
        words = text.split()
        if not words or not all(word.isascii() and word.isdigit() for word in words):
            return None
        if len(words) != int(np.prod(self._space.shape or ())) or max(map(len, words)) > 9:
            return None
        action = np.array([int(word) for word in words], dtype=self._space.dtype)
        action = action.reshape(self._space.shape or ())
        return action if self._space.contains(action) else None


class Words:
    """Text actions, taken as they are."""

    names: tuple[str, ...] = ()

    def __init__(self, space: Space[object]) -> None:
        self._space = space

    def read(self, text: str) -> str | None:
        """The text, if it is one of the space."""
        return text if self._space.contains(text) else None


def action_words(space: Space[object], names: Sequence[str]) -> ActionWords:
    """How the actions of `space` are said; `names` for a Discrete one, or its numbers.

    Raises:
        ConfigError: a space that cannot be said in words, or not one name for each action.
    """
    from gymnasium import spaces

    if isinstance(space, spaces.Discrete):
        count, first = int(space.n), int(space.start)
        if names and (len(names) != count or len(set(names)) != count):
            raise ConfigError(
                f"env.names: expected {count} different names, one for each action, got "
                f"{', '.join(names)}"
            )
        return Named(names or [str(first + i) for i in range(count)], first)
    if names:
        raise ConfigError(f"env.names: only Discrete actions have names, these are {space}")
    if isinstance(space, spaces.MultiDiscrete | spaces.MultiBinary):
        return Numbers(cast("Space[object]", space))
    if isinstance(space, spaces.Text):
        return Words(cast("Space[object]", space))
    raise ConfigError(
        f"env.id: actions must be Discrete, MultiDiscrete, MultiBinary or Text to be said in "
        f"words, these are {space}"
    )


def check_shown(space: Space[object]) -> None:
    """Raise `ConfigError` unless `written` can write this space."""
    from gymnasium import spaces

    if isinstance(space, spaces.Dict):
        for inner in space.spaces.values():
            check_shown(inner)
    elif isinstance(space, spaces.Tuple):
        for inner in space.spaces:
            check_shown(inner)
    elif isinstance(space, spaces.Box | spaces.MultiDiscrete | spaces.MultiBinary):
        count = int(np.prod(space.shape))
        if count > MOST_NUMBERS:
            raise ConfigError(
                f"env.show: an observation of {count} numbers ({space}) is too long as text (at "
                f"most {MOST_NUMBERS}); choose env.show=ansi if this env can render it, or write "
                "an env of your own around it (docs/add-an-env.md)"
            )
    elif not isinstance(space, spaces.Discrete | spaces.Text):
        raise ConfigError(
            f"env.show: {type(space).__name__} observations cannot be written as text; choose "
            "env.show=ansi if this env can render them"
        )


def written(value: object, digits: int | None) -> str:
    """An observation as text: numbers between spaces, a Dict as lines `key value`.

    `digits` rounds what is not whole; None writes it exactly.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return "\n".join(f"{name} {written(inner, digits)}" for name, inner in value.items())
    if isinstance(value, tuple | list):
        return " ".join(written(inner, digits) for inner in value)
    if isinstance(value, np.ndarray):
        return " ".join(written(inner, digits) for inner in value.ravel().tolist())
    if isinstance(value, float | np.floating):
        rounded = float(value) if digits is None else round(float(value), digits) + 0.0
        return f"{rounded!r}" if digits is None else f"{rounded:.{digits}f}"
    return str(int(cast("int", value)))
