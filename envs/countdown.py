"""Countdown: make a target from the numbers dealt, one calculation a turn.

    make 24 from 8 5 3        calc 5 + 3
    make 24 from 8 8          calc 8 + 8
    make 24 from 16           ... missed

A calculation takes two of the numbers that are left and puts its result in their place. Results are
whole and positive: 3 - 8, 5 - 5 and 8 / 3 are refused, which costs a turn and nothing else. `calc`
may be left out; it is there so that every number follows a space and is the same token wherever it
stands. The game is that of "Stream of Search" (arXiv 2404.03683), played turn by turn.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import combinations
from random import Random
from typing import Annotated, ClassVar, Literal, NamedTuple

from annotated_types import Ge, Le, Lt

from agentrl.core.errors import ConfigError, EnvError
from agentrl.core.protocols import Env, RunsIn
from agentrl.core.registry import register
from agentrl.core.starts import Beginning, Starts, Tasks, digest
from agentrl.core.types import Action, Split, Step, Task

OPERATIONS = "+-*/"
CALCULATION = re.compile(r"(?:calc +)?([0-9]{1,18}) *([-+*/]) *([0-9]{1,18})")
ANSWER = re.compile(r"answer +([0-9]{1,18})")
GOAL = re.compile(r"have +([0-9]{1,18})")
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


class Saved(NamedTuple):
    """A snapshot."""

    target: int
    numbers: Numbers
    turn: int
    is_over: bool


class Deal(NamedTuple):
    """What decides which tasks there are."""

    numbers: int
    largest: int
    target_low: int
    target_high: int
    operations: str


@register("env", "countdown")
@dataclass(kw_only=True)
class Countdown(Env):
    """Make a target from a few numbers, one calculation a turn (`calc 8 - 5`)."""

    runs_in: ClassVar[RunsIn] = "inline"

    numbers: Annotated[int, Ge(2), Le(6)] = 4
    """How many numbers are dealt (2 to 6)."""
    largest: Annotated[int, Ge(2), Le(1000)] = 20
    """Numbers are dealt from 1 to this (2 to 1000)."""
    target_low: Annotated[int, Ge(1)] = 10
    """Least target (1 or more)."""
    target_high: Annotated[int, Ge(1), Le(1_000_000)] = 100
    """Largest target (`target_low` to 1,000,000)."""
    operations: str = OPERATIONS
    """Which of `+-*/` may be used."""
    ends: Literal["reached", "answer"] = "reached"
    """The episode ends as soon as the target is `reached`, or only when `answer 24` is said."""
    turns: Annotated[int, Ge(1)] | None = None
    """Turns until truncation; `none` is twice what the longest solution takes."""
    shaping: Annotated[float, Ge(0), Lt(1)] = 0.0
    """What a failure is worth at most: this times 1 - distance / target of the nearest number left
    (0: only success is worth something, and that is 1)."""
    train_tasks: Annotated[int, Ge(1)] = 2_000
    """Length of the train split; each task is another start."""
    dev_tasks: Annotated[int, Ge(1)] = 200
    """Length of the dev split."""
    test_tasks: Annotated[int, Ge(1)] = 400
    """Length of the test split."""

    def __post_init__(self) -> None:
        if not self.operations or set(self.operations) - set(OPERATIONS):
            raise ConfigError(
                f"env.operations: expected some of {OPERATIONS}, got {self.operations!r}"
            )
        if self.target_high < self.target_low:
            raise ConfigError(
                f"env.target_high: must be at least env.target_low={self.target_low}, got "
                f"{self.target_high}"
            )
        if self.turns is not None and self.turns < self._longest:
            raise ConfigError(
                f"env.turns: with env.numbers={self.numbers} and env.ends={self.ends} a solution "
                f"may take {self._longest} turns, got {self.turns}"
            )
        self._now = Saved(0, (), 0, True)

    @property
    def _longest(self) -> int:
        return self.numbers - 1 + (self.ends == "answer")

    def tasks(self, split: Split) -> Sequence[Task]:
        """Distinct starts, all of them solvable; a hash of the start decides its split (2:1:1)."""
        lengths = {"train": self.train_tasks, "dev": self.dev_tasks, "test": self.test_tasks}
        operations = "".join(o for o in OPERATIONS if o in self.operations)
        dealt = Deal(self.numbers, self.largest, self.target_low, self.target_high, operations)
        return Tasks("countdown", split, lengths[split], starts(dealt))

    def reset(self, task: Task) -> str:
        """Deal `task.data`'s numbers. Raises `EnvError` if it holds no numbers and target."""
        numbers, target = task.data.get("numbers"), task.data.get("target")
        if not (isinstance(numbers, list | tuple) and numbers and is_natural(target, *numbers)):
            raise EnvError(
                "countdown: a task's data needs numbers and a target, all whole and positive, as "
                f"in {{'numbers': [8, 5, 3], 'target': 24}}; task {task.id} has "
                f"{dict(task.data)!r:.200}"
            )
        dealt = tuple(sorted((int(str(n)) for n in numbers), reverse=True))
        self._now = Saved(int(str(target)), dealt, 0, False)
        return self._shown()

    def step(self, action: Action) -> Step:
        """A calculation, or the answer; anything else costs a turn and is reported invalid."""
        now = self._playing()
        text = action.strip() if isinstance(action, str) else ""
        said = ANSWER.fullmatch(text) if self.ends == "answer" else None
        numbers, refusal = now.numbers, ""
        if said is None:
            numbers, refusal = self._calculate(text)
        is_reached = now.target in numbers
        if self.ends == "answer":
            is_reached = is_reached and said is not None and int(said[1]) == now.target
        turn = now.turn + 1
        terminated = is_reached or said is not None or self._is_stuck(numbers)
        truncated = not terminated and turn >= (self.turns or 2 * self._longest)
        self._now = Saved(now.target, numbers, turn, terminated or truncated)
        info: dict[str, object] = {"metrics": {"steps": float(turn)}}
        if refusal:
            info["invalid_action"] = True
        reward = 0.0
        if self._now.is_over:
            info["success"] = is_reached
            reward = 1.0 if is_reached else self.shaping * closeness(numbers, now.target)
        return Step(
            observation=f"{refusal}\n{self._shown()}" if refusal else self._shown(),
            reward=reward,
            terminated=terminated,
            truncated=truncated,
            info=info,
        )

    def close(self) -> None:
        """Nothing is held."""
        self._now = self._now._replace(is_over=True)

    def snapshot(self) -> Saved:
        """Target, numbers and turn."""
        return self._now

    def restore(self, snapshot: Saved) -> None:
        """Go on from a snapshot."""
        self._now = snapshot

    def state_key(self) -> str:
        """Target and numbers left, as in `24=8,5,3`; not the number of turns taken."""
        return key(self._now.target, self._now.numbers)

    def legal_actions(self) -> list[str]:
        """Every calculation that would be carried out, and the answers that can be given."""
        now = self._playing()
        legal = [str(c) for c in calculations(now.numbers, self.operations)]
        if self.ends == "answer":
            legal += [f"answer {n}" for n in sorted(set(now.numbers), reverse=True)]
        return legal

    def expert_action(self) -> str:
        """The first step of a shortest solution; where none is left, the first legal action."""
        now = self._playing()
        if now.target in now.numbers:
            return f"answer {now.target}"
        found = solve(now.numbers, now.target, self.operations)
        return self.legal_actions()[0] if found is None else str(found)

    def check(self, goal: str) -> bool | None:
        """`have 16`: whether 16 is among the numbers left; `solvable`: whether the target can still
        be made. None for any other goal."""
        now = self._now
        if goal.strip() == "solvable":
            is_there = now.target in now.numbers
            return is_there or solve(now.numbers, now.target, self.operations) is not None
        wanted = GOAL.fullmatch(goal.strip())
        return None if wanted is None else int(wanted[1]) in now.numbers

    def _playing(self) -> Saved:
        if self._now.is_over:
            raise RuntimeError("countdown: the episode is over (or never began): call reset(task)")
        return self._now

    def _shown(self) -> str:
        return f"make {self._now.target} from {' '.join(map(str, self._now.numbers))}"

    def _is_stuck(self, numbers: Numbers) -> bool:
        if self.ends == "answer":
            return False
        return next(calculations(numbers, self.operations), None) is None

    def _calculate(self, text: str) -> tuple[Numbers, str]:
        """The numbers after a calculation, and why it was refused, if it was."""
        numbers = self._now.numbers
        read = CALCULATION.fullmatch(text)
        if read is None:
            example = "calc 8 - 5" + (" or answer 8" if self.ends == "answer" else "")
            return numbers, f"say a calculation such as {example}"
        left, operation, right = int(read[1]), read[2], int(read[3])
        if operation not in self.operations:
            return numbers, f"only {' '.join(self.operations)} may be used"
        for wanted, needed in ((left, 1), (right, 1 + (left == right))):
            if numbers.count(wanted) < needed:
                return numbers, f"there is no {'other ' if needed > 1 else ''}{wanted}"
        result = calculate(left, operation, right)
        if result is None:
            return numbers, f"{left} {operation} {right} is not whole and positive"
        return after(numbers, Calculation(left, operation, right, result)), ""


# --- the game: exact integers; what a model says is matched, never evaluated ----------------------


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
