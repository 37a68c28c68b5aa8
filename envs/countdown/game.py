"""The game of Countdown and its dealer: exact integers, no text of a model."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, lru_cache
from itertools import combinations
from random import Random
from typing import NamedTuple

from agentrl.core.starts import Beginning, Starts, digest

OPERATIONS = "+-*/"
DEALS = 100
"""Random lines of play of one deal, until one ends in a target that is wanted."""

Numbers = tuple[int, ...]
"""The numbers that are left, largest first."""


class Calculation(NamedTuple):
    """`left operation right = result`; its text is the action."""

    left: int
    operation: str
    right: int
    result: int

    def __str__(self) -> str:
        return f"calc {self.left} {self.operation} {self.right}"

    @property
    def is_useless(self) -> bool:
        """It only throws a number away (x * 1, x / 1, 2x - x), so no shortest solution has it."""
        return self.result in (self.left, self.right)


class Deal(NamedTuple):
    """What decides which tasks there are."""

    numbers: int
    largest: int
    target_low: int
    target_high: int
    operations: str


def calculate(left: int, operation: str, right: int) -> int | None:
    """The result, or None where it is not whole and positive."""
    match operation:
        case "+":
            return left + right
        case "-":
            return left - right if left > right else None
        case "*":
            return left * right
        case _:
            return left // right if left % right == 0 else None


def calculations(numbers: Numbers, operations: str) -> Iterator[Calculation]:
    """Every distinct calculation on two of the numbers (largest first), the larger on the left."""
    for left, right in dict.fromkeys(combinations(numbers, 2)):
        for operation in operations:
            result = calculate(left, operation, right)
            if result is not None:
                yield Calculation(left, operation, right, result)


def after(numbers: Numbers, done: Calculation) -> Numbers:
    """The numbers that are left when the result has taken the place of its operands."""
    left = list(numbers)
    left.remove(done.left)
    left.remove(done.right)
    return tuple(sorted([*left, done.result], reverse=True))


def solve(numbers: Numbers, target: int, operations: str) -> Calculation | None:
    """The first calculation of a shortest solution, or None if there is no solution.

    The target is not among the numbers yet. Iterative deepening over all lines of play; states
    without a solution are remembered.
    """
    for depth in range(1, len(numbers)):
        found = _first(numbers, target, operations, depth)
        if found is not None:
            return found
    return None


@lru_cache(maxsize=1 << 18)
def _first(numbers: Numbers, target: int, operations: str, depth: int) -> Calculation | None:
    """What to begin with to make the target by at most `depth` calculations."""
    choices = list(calculations(numbers, operations))
    for choice in choices:
        if choice.result == target:
            return choice
    if depth == 1:
        return None
    for choice in choices:
        if not choice.is_useless:
            rest = after(numbers, choice)
            if _first(rest, target, operations, depth - 1) is not None:
                return choice
    return None


def closeness(numbers: Numbers, target: int) -> float:
    """1 - distance / target of the nearest number, 0 where that is negative."""
    return max(0.0, 1 - min(abs(n - target) for n in numbers) / target)


def key(target: int, numbers: Numbers) -> str:
    """Names a state."""
    return f"{target}={','.join(map(str, numbers))}"


def is_natural(*values: object) -> bool:
    """Whether all are whole numbers above 0."""
    return all(isinstance(v, int) and not isinstance(v, bool) and v > 0 for v in values)


# --- dealing --------------------------------------------------------------------------------------


@cache
def starts(dealt: Deal) -> Starts:
    """One walk per deal and process."""

    def begin(seed: int) -> Beginning | None:
        found = deal(dealt, Random(seed))
        if found is None:
            return None
        numbers, target = found
        text = f"make {target} from {' '.join(map(str, numbers))}"
        return Beginning(
            digest(key(target, numbers)), text, {"numbers": list(numbers), "target": target}
        )

    settings = ", ".join(f"{name}={value}" for name, value in dealt._asdict().items())
    return Starts(begin, place="env", what=f"countdown with {settings}")


def deal(dealt: Deal, rng: Random) -> tuple[Numbers, int] | None:
    """Numbers, and a target that a random line of play ends in; None if none lies in the range."""
    numbers = tuple(
        sorted((rng.randint(1, dealt.largest) for _ in range(dealt.numbers)), reverse=True)
    )
    for _ in range(DEALS):
        left = numbers
        while len(left) > 1:
            choices = [c for c in calculations(left, dealt.operations) if not c.is_useless]
            if not choices:
                break
            left = after(left, rng.choice(choices))
        is_wanted = dealt.target_low <= left[0] <= dealt.target_high
        if len(left) == 1 and is_wanted and left[0] not in numbers:
            return numbers, left[0]
    return None
