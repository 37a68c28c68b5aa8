"""Texts as vectors without a model: hashed n-grams of letters and words."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float32]
WIDTH = 256
LETTERS = 3


@lru_cache(maxsize=1 << 16)
def embed(text: str) -> Vector:
    """`[256]`, of length 1 (0 for an empty text): counts of words and of three letters in a row,
    each at the place and with the sign that its CRC-32 says."""
    vector = np.zeros(WIDTH, np.float32)
    for gram in _grams(text.lower()):
        code = zlib.crc32(gram.encode())
        vector[code % WIDTH] += 1.0 if code >> 31 else -1.0
    length = float(np.linalg.norm(vector))
    return vector / np.float32(length) if length else vector


def cosine(a: Vector, b: Vector) -> float:
    """Of two vectors of length 1; 0 with an empty text."""
    return float(a @ b)


def _grams(text: str) -> Iterator[str]:
    words = text.split()
    yield from words
    joined = f" {' '.join(words)} " if words else ""
    yield from (joined[i : i + LETTERS] for i in range(len(joined) - LETTERS + 1))
