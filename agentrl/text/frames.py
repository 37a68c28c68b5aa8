"""Coordinates as models say them, to canonical thousandths and back.

A canonical coordinate is a whole number from 0 to 1000, in thousandths of the screen's width or
height. A frame of `n` steps (pixels) has 0 at the same edge and `n` at the other, so that what is
said in a resized picture holds for the screen. Both ways round to the nearest, halves up, in exact
fractions:

    canonical = floor(said * 1000 / n + 1/2)      said = floor(canonical * n / 1000 + 1/2)

Hence canonical coordinates survive a way through a frame of 1,000 steps or more, and what is said
in a frame of at most 1,000 steps survives the way through canonical ones. The far edge itself
(`n`) is allowed; whoever performs the action takes the last pixel for it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, Protocol

from annotated_types import Ge

from agentrl.core.errors import ConfigError
from agentrl.text.gui import FARTHEST, FULL, MalformedError, Point

HALF = Fraction(1, 2)
MOST_UNEQUAL = 200
"""How many times as long as the other a side of a picture may be (Qwen2-VL's own rule)."""


class Frame(Protocol):
    """A way to say where something is."""

    def say(self, point: Point) -> tuple[float, float]:
        """The numbers for a canonical point, x first."""
        ...

    def place(self, x: float, y: float) -> Point:
        """The canonical point for such numbers. Raises `MalformedError` outside of the frame."""
        ...


@dataclass(frozen=True, kw_only=True)
class Pixels:
    """Pixels of a picture that shows the whole screen; `Pixels(width=1000, height=1000)` is the
    0-1000 of UI-TARS v1, and canonical coordinates themselves."""

    width: Annotated[int, Ge(1)]
    """Pixels from left to right."""
    height: Annotated[int, Ge(1)]
    """Pixels from top to bottom."""

    def say(self, point: Point) -> tuple[int, int]:
        """Whole pixels."""
        return _nearest(point.x, self.width, FULL), _nearest(point.y, self.height, FULL)

    def place(self, x: float, y: float) -> Point:
        """From pixels, whole or not."""
        return Point(
            _nearest(_inside(x, self.width), FULL, self.width),
            _nearest(_inside(y, self.height), FULL, self.height),
        )


THOUSANDTHS = Pixels(width=FULL, height=FULL)


@dataclass(frozen=True, kw_only=True)
class Shares:
    """Shares of the width and the height, from 0 to 1 in three decimals."""

    def say(self, point: Point) -> tuple[float, float]:
        """Each coordinate over 1000."""
        return point.x / FULL, point.y / FULL

    def place(self, x: float, y: float) -> Point:
        """From shares, rounded to thousandths."""
        return Point(_nearest(_inside(x, 1), FULL, 1), _nearest(_inside(y, 1), FULL, 1))


def resized(
    width: int, height: int, *, multiple: int = 28, min_pixels: int = 3136, max_pixels: int
) -> Pixels:
    """The frame of a screenshot as Qwen's image processors resize it before the model sees it.

    Both sides are rounded to a multiple of 28 (Qwen2-VL, Qwen2.5-VL, UI-TARS v1.5) or 32
    (Qwen3-VL), halves to the even multiple; a picture with too many pixels is first shrunk, and its
    sides rounded down, one with too few is grown, and its sides rounded up.

    Args:
        width: Pixels of the screenshot from left to right.
        height: Pixels of the screenshot from top to bottom.
        multiple: What both sides become a multiple of.
        min_pixels: Fewest pixels of the result.
        max_pixels: Most pixels of the result (12,845,056 is Qwen2.5-VL's default; 2,116,800
            ARPO's).

    Raises:
        ConfigError: a side is more than 200 times as long as the other, or shorter than 1.
    """
    if min(width, height) < 1 or max(width, height) > MOST_UNEQUAL * min(width, height):
        raise ConfigError(
            f"expected a screen of which no side is over {MOST_UNEQUAL} times the other, got "
            f"{width}x{height}"
        )
    w, h = (max(multiple, round(side / multiple) * multiple) for side in (width, height))
    if w * h > max_pixels:
        shrink = math.sqrt(width * height / max_pixels)
        w, h = (
            max(multiple, math.floor(side / shrink / multiple) * multiple)
            for side in (width, height)
        )
    elif w * h < min_pixels:
        grow = math.sqrt(min_pixels / (width * height))
        w, h = (math.ceil(side * grow / multiple) * multiple for side in (width, height))
    return Pixels(width=w, height=h)


def distance_in(size: int, amount: int) -> int:
    """Pixels of a distance in thousandths of a side of `size` pixels, one at least."""
    return max(1, _nearest(amount, size, FULL))


def distance_of(size: int, pixels: float) -> int:
    """Thousandths of a side of `size` pixels. Raises `MalformedError` for over ten screens."""
    amount = max(1, _nearest(pixels, FULL, size))
    if amount > FARTHEST:
        raise MalformedError(f"expected at most {size * FARTHEST // FULL} pixels, got {pixels}")
    return amount


def _nearest(value: float, up: int, down: int) -> int:
    return math.floor(Fraction(value) * up / down + HALF)


def _inside(value: float, far: int) -> float:
    if not 0 <= value <= far:  # NaN is not
        raise MalformedError(f"expected a coordinate from 0 to {far}, got {value}")
    return value
