"""Countdown in one message: an expression as the answer, and the search that led to it, in writing.

    8 5 3 | 8 + 5 = 13 | 13 3          what is left, a calculation, what is left then
    13 3 | 13 + 3 = 16 | 16
    ...
    answer 8 * ( 5 - 2 )

What a model says is matched and computed here in exact fractions, never evaluated.
"""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from fractions import Fraction
from random import Random
from typing import Literal, NamedTuple

from agentrl.envs.countdown.game import Calculation, Numbers, after, calculate, calculations, solve

LONGEST = 100_000
"""Characters of a message; a longer one is refused."""
LONGEST_ANSWER = 500
"""Characters of an expression; six numbers need far fewer."""
DEEPEST = 20
"""Brackets within each other."""
TOKEN = re.compile(r" *(?:([0-9]{1,18})|([-+*/()]))")
STATE = r"([0-9]{1,18}(?: [0-9]{1,18}){0,5})"
NUMBER = r"([0-9]{1,18})"
TRIED = re.compile(rf"{STATE} \| {NUMBER} ([-+*/]) {NUMBER} = {NUMBER} \| {STATE}")
ANSWER_LINE = re.compile(r"answer +([-+*/() 0-9]+)")

Search = Literal["dfs", "bfs"]


class Refused(Exception):  # noqa: N818 - an answer to the model, not an error of ours
    """Why an expression is not taken."""


class Tried(NamedTuple):
    """A line of a search: the numbers before, the calculation, the numbers after."""

    before: Numbers
    done: Calculation
    after: Numbers

    def __str__(self) -> str:
        before, left = (" ".join(map(str, numbers)) for numbers in (self.before, self.after))
        return f"{before} | {str(self.done).removeprefix('calc ')} = {self.done.result} | {left}"


# --- searching, and writing it down ---------------------------------------------------------------


def search(
    numbers: Numbers, target: int, operations: str, order: Search
) -> tuple[list[Tried], list[Calculation]]:
    """Every calculation that is tried until the target is there, and those that made it.

    Depth first goes on from each new state at once, breadth first from the oldest; numbers that
    were left before are not gone on from again. Without a solution there is none in the second.
    """
    tried: list[Tried] = []
    cause: dict[Numbers, Tried] = {}
    waiting = deque([(numbers, calculations(numbers, operations))])
    while waiting:
        before, choices = waiting[-1] if order == "dfs" else waiting[0]
        choice = next(choices, None)
        if choice is None:
            waiting.pop() if order == "dfs" else waiting.popleft()
            continue
        left = after(before, choice)
        tried.append(Tried(before, choice, left))
        if choice.result == target:
            return tried, _way(tried[-1], cause)
        if len(left) > 1 and left != numbers and left not in cause:
            cause[left] = tried[-1]
            waiting.append((left, calculations(left, operations)))
    return tried, []


def _way(last: Tried, cause: dict[Numbers, Tried]) -> list[Calculation]:
    """The calculations from the start to `last`."""
    way = [last]
    while way[-1].before in cause:
        way.append(cause[way[-1].before])
    return [tried.done for tried in reversed(way)]


def shortest(numbers: Numbers, target: int, operations: str) -> list[Calculation]:
    """The calculations of a shortest solution; none if there is none or nothing to do."""
    way: list[Calculation] = []
    while target not in numbers:
        done = solve(numbers, target, operations)
        if done is None:
            return []
        way.append(done)
        numbers = after(numbers, done)
    return way


def express(way: Sequence[Calculation]) -> str:
    """The last result as one expression of dealt numbers: `8 * ( 5 - 2 )`. The way is not empty."""
    made: dict[int, list[str]] = {}
    text = ""
    for done in way:
        left, right = (made[n].pop() if made.get(n) else str(n) for n in (done.left, done.right))
        text = f"{left} {done.operation} {right}"
        made.setdefault(done.result, []).append(f"( {text} )")
    return text


def guesses(numbers: Numbers, target: int, operations: str, rng: Random, count: int) -> list[str]:
    """Distinct answers from `count` random lines of play, each to its end or to the target."""
    found: dict[str, None] = {}
    for _ in range(count):
        left, way = numbers, list[Calculation]()
        while not way or way[-1].result != target:
            choices = list(calculations(left, operations))
            if not choices:
                break
            way.append(rng.choice(choices))
            left = after(left, way[-1])
        if way:
            found[f"answer {express(way)}"] = None
    return list(found)


# --- reading --------------------------------------------------------------------------------------


def right_lines(lines: Sequence[str], numbers: Numbers, operations: str) -> int:
    """How many lines of a search hold: each goes on from the dealt numbers or from what an earlier
    line that holds left, and calculates rightly."""
    known, right = {numbers}, 0
    for line in lines:
        read = TRIED.fullmatch(line.strip())
        if read is None or read[3] not in operations:
            continue
        before, left = (tuple(map(int, read[group].split())) for group in (1, 6))
        done = Calculation(int(read[2]), read[3], int(read[4]), int(read[5]))
        is_there = not Counter([done.left, done.right]) - Counter(before)
        result = calculate(done.left, done.operation, done.right)
        if before in known and is_there and result == done.result and after(before, done) == left:
            known.add(left)
            right += 1
    return right


def value_of(text: str, numbers: Numbers, operations: str) -> Fraction:
    """What an expression of dealt numbers is worth, each used at most once.

    Raises:
        Refused: it is none, divides by zero, or uses another number or operation.
    """
    used: list[int] = []
    tokens = _tokens(text)
    value = _sum(_Ahead(tokens, operations, used), 0)
    missing = Counter(used) - Counter(numbers)
    if missing:
        number = next(iter(missing))
        raise Refused(f"there is no {'other ' if number in numbers else ''}{number}")
    return value


def _tokens(text: str) -> list[str]:
    if len(text) > LONGEST_ANSWER:
        raise Refused(f"an answer has at most {LONGEST_ANSWER} characters")
    found, at = [], 0
    text = text.rstrip(" ")
    while at < len(text):
        read = TOKEN.match(text, at)
        if read is None:
            raise Refused(NO_EXPRESSION)
        found.append(read[1] or read[2])
        at = read.end()
    return found


NO_EXPRESSION = "say an expression of the numbers such as answer 8 * ( 5 - 2 )"


class _Ahead:
    """The tokens that are left to read."""

    def __init__(self, tokens: list[str], operations: str, used: list[int]) -> None:
        self._left: Iterator[str] = iter(tokens)
        self.operations, self.used = operations, used
        self.token = next(self._left, "")

    def take(self) -> str:
        """The next token, which is passed."""
        token, self.token = self.token, next(self._left, "")
        return token

    def operation(self, among: str) -> str:
        """The next token if it is one of these operations; empty if not."""
        if self.token == "" or self.token not in among:
            return ""
        if self.token not in self.operations:
            raise Refused(f"only {' '.join(self.operations)} may be used")
        return self.take()


def _sum(ahead: _Ahead, depth: int) -> Fraction:
    value = _product(ahead, depth)
    while operation := ahead.operation("+-"):
        other = _product(ahead, depth)
        value = value + other if operation == "+" else value - other
    if ahead.token != ("" if depth == 0 else ")"):
        raise Refused(NO_EXPRESSION)
    return value


def _product(ahead: _Ahead, depth: int) -> Fraction:
    value = _atom(ahead, depth)
    while operation := ahead.operation("*/"):
        other = _atom(ahead, depth)
        if operation == "/" and other == 0:
            raise Refused("it divides by 0")
        value = value * other if operation == "*" else value / other
    return value


def _atom(ahead: _Ahead, depth: int) -> Fraction:
    token = ahead.take()
    if token.isdecimal():
        ahead.used.append(int(token))
        return Fraction(int(token))
    if token != "(" or depth == DEEPEST:
        raise Refused(NO_EXPRESSION)
    value = _sum(ahead, depth + 1)
    ahead.take()
    return value
