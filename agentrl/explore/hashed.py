"""Texts as inputs of small models: hashed words, pairs of words, and where they stand.

Of any size, for what is counted or foreseen; `embedding.py` has vectors to compare texts by.
"""

from __future__ import annotations

import base64
import re
import zlib
from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from agentrl.core.errors import ConfigError
from agentrl.core.types import Json

Vector = NDArray[np.float64]
WORD = re.compile(r"\w+|[^\w\s]")


@lru_cache(maxsize=65_536)
def embedded(text: str, size: int, *, places: bool = False, beside: str = "") -> Vector:
    """`[size]`, of length 1 (all zeros for a text without words); never written to.

    Args:
        places: also where in its line and text each word stands, which tells maps apart.
        beside: is joined to every word, such as the action that was taken at this text.
    """
    found = np.zeros(size)
    for feature in _features(text, places):
        code = zlib.crc32(f"{beside}\t{feature}".encode())
        found[code % size] += 1.0 if code >> 31 else -1.0
    length = float(np.linalg.norm(found))
    found = found / length if length else found
    found.setflags(write=False)
    return found


def _features(text: str, places: bool) -> Iterator[str]:
    for row, line in enumerate(text.splitlines()):
        words = WORD.findall(line)
        yield from words
        yield from map(" ".join, pairwise(words))
        if places:
            yield from (f"{row} {column} {word}" for column, word in enumerate(words))


def regressed(seen: Vector, sums: Vector, ridge: float) -> Vector:
    """The weights W with the least `sum |y - W x|^2 + ridge |W|^2`, of `seen = sum x x^T` and
    `sums = sum y x^T`."""
    found = np.linalg.solve(seen + ridge * np.eye(len(seen)), sums.T).T
    return found.astype(np.float64)


def packed(array: NDArray[np.float64]) -> Json:
    """An array as plain data, exactly."""
    data = base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
    return {"shape": list(array.shape), "data": data}


def unpacked(plain: Json, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """What `packed` wrote. Raises `ConfigError` if it is none of that shape."""
    found = plain if isinstance(plain, dict) else {}
    data = found.get("data")
    if found.get("shape") != list(shape) or not isinstance(data, str):
        raise ConfigError(f"bonus: expected the state of an array {shape}, got {plain!r:.100}")
    return np.frombuffer(base64.b64decode(data)).reshape(shape).copy()
