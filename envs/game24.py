"""Game 24: make 24 from four numbers, each used once: Intelligent Go-Explore's restricted game.

    make 24 from 4 4 6 8      calc 8 - 4
    make 24 from 4 4 6        calc 6 + 4
    make 24 from 4 10         ... missed

A state is the sorted tuple of the numbers left, an action a pair of them and one of `+-*/`. `-` is
larger minus smaller and `/` larger by smaller, whichever is named first, and a quotient must be
whole. An episode ends with one number left, or with an illegal division; it is a success if the
state is then exactly (24). So Lu et al. 2024 (arXiv 2405.15143) play it, over the game of Yao et
al. 2023 (arXiv 2305.10601). `rules: full` is the game as people play it: fractions, and division
both ways.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, lru_cache
from itertools import combinations
from pathlib import Path
from random import Random
from typing import Annotated, ClassVar, Literal, NamedTuple

from annotated_types import Ge, Le

from agentrl.core.errors import ConfigError, EnvError
from agentrl.core.one_state import OneState
from agentrl.core.protocols import RunsIn
from agentrl.core.registry import register
from agentrl.core.starts import Beginning, Starts, Tasks, digest
from agentrl.core.types import Action, Split, Step, Task

OPERATIONS = "+-*/"
NUMBER = r"([0-9]{1,18}(?:/[0-9]{1,18})?)"
CALCULATION = re.compile(rf"(?:calc +)?{NUMBER}(?: +(/) +| *([-+*]) *){NUMBER}")
DIVISION = re.compile(r"(?:calc +)?([0-9]{1,18})/([0-9]{1,18})")
GOAL = re.compile(rf"have +{NUMBER}")
SPLITS: tuple[Split, ...] = ("train", "dev", "test")

Numbers = tuple[Fraction, ...]
"""The numbers that are left, smallest first."""
Rules = Literal["restricted", "full"]


class Move(NamedTuple):
    """`left operation right = result`, None where that is illegal; its text is the action."""

    left: Fraction
    operation: str
    right: Fraction
    result: Fraction | None

    def __str__(self) -> str:
        return f"calc {self.left} {self.operation} {self.right}"


class Saved(NamedTuple):
    """A snapshot."""

    numbers: Numbers
    turn: int
    is_over: bool


class Deal(NamedTuple):
    """What decides which tasks there are."""

    numbers: int
    largest: int
    target: int
    rules: Rules


@register("env", "game24")
@dataclass(kw_only=True)
class Game24(OneState[Saved]):
    """Make 24 from four numbers, each used once, one calculation a turn (`calc 8 - 4`)."""

    runs_in: ClassVar[RunsIn] = "inline"
    cite: ClassVar[str] = (
        "Yao et al. 2023 (Tree of Thoughts), arXiv 2305.10601; "
        "Lu et al. 2024 (Intelligent Go-Explore), arXiv 2405.15143"
    )

    rules: Rules = "restricted"
    """`restricted`: a quotient must be whole, larger by smaller (Intelligent Go-Explore); `full`:
    any division but by zero, in exact fractions."""
    numbers: Annotated[int, Ge(2), Le(5)] = 4
    """How many numbers are dealt (2 to 5)."""
    largest: Annotated[int, Ge(1), Le(1000)] = 13
    """Numbers are dealt from 1 to this (1 to 1000)."""
    target: Annotated[int, Ge(1), Le(1_000_000)] = 24
    """What must be left in the end (1 to 1,000,000)."""
    turns: Annotated[int, Ge(1)] | None = None
    """Turns until truncation; `none` is twice what a solution takes."""
    puzzles: Path | None = None
    """A JSON file of your own puzzles: `{"test": [[4, 4, 6, 8], ...]}` with any of train, dev and
    test, or a bare list (also under the key `puzzles`), which is the test split. What it does not
    name is dealt, without any puzzle of the file."""
    train_tasks: Annotated[int, Ge(1)] = 400
    """Length of a dealt train split; each task is another start."""
    dev_tasks: Annotated[int, Ge(1)] = 100
    """Length of a dealt dev split."""
    test_tasks: Annotated[int, Ge(1)] = 200
    """Length of a dealt test split."""

    def __post_init__(self) -> None:
        if self.turns is not None and self.turns < self.numbers - 1:
            raise ConfigError(
                f"env.turns: with env.numbers={self.numbers} a solution takes {self.numbers - 1} "
                f"turns, got {self.turns}"
            )
        self._listed = {} if self.puzzles is None else read(self.puzzles)
        self._now = Saved((), 0, True)

    def tasks(self, split: Split) -> Sequence[Task]:
        """The split that the file names; else distinct solvable starts, split by hash (2:1:1)."""
        if split in self._listed:
            return [
                Task(
                    id=f"game24/{split}/{i:06d}",
                    seed=i,
                    instruction=shown(self.target, exact(numbers)),
                    data={"numbers": list(numbers)},
                )
                for i, numbers in enumerate(self._listed[split])
            ]
        lengths = {"train": self.train_tasks, "dev": self.dev_tasks, "test": self.test_tasks}
        dealt = Deal(self.numbers, self.largest, self.target, self.rules)
        held_out = frozenset(n for listed in self._listed.values() for n in listed)
        return Tasks("game24", split, lengths[split], starts(dealt, held_out))

    def reset(self, task: Task) -> str:
        """Lay out `task.data`'s numbers. Raises `EnvError` if it holds none."""
        numbers = task.data.get("numbers")
        if not is_puzzle(numbers):
            raise EnvError(
                "game24: a task's data needs two to six whole numbers above 0, as in "
                f"{{'numbers': [4, 4, 6, 8]}}; task {task.id} has {dict(task.data)!r:.200}"
            )
        self._now = Saved(exact(numbers), 0, False)  # type: ignore[arg-type]
        return self._shown()

    def step(self, action: Action) -> Step:
        """A calculation. What is not understood costs a turn; an illegal one ends the episode."""
        now = self._playing()
        move, refusal = self._read(action.strip() if isinstance(action, str) else "")
        is_illegal = move is not None and move.result is None
        numbers = now.numbers if move is None else after(now.numbers, move)
        turn = now.turn + 1
        terminated = is_illegal or len(numbers) == 1
        truncated = not terminated and turn >= (self.turns or 2 * (self.numbers - 1))
        self._now = Saved(numbers, turn, terminated or truncated)
        success = is_made(numbers, self.target)
        return self._stepped(
            self._shown(),
            refusal=refusal,
            reward=1.0 if success else 0.0,
            success=success,
            terminated=terminated,
            truncated=truncated,
            metrics={"steps": float(turn)},
        )

    def state_key(self) -> str:
        """Target and numbers left, as in `24=4,4,6,8`; not the number of turns taken."""
        return f"{self.target}={','.join(map(str, self._now.numbers))}"

    def legal_actions(self) -> list[str]:
        """Every distinct calculation that is no illegal division."""
        found = moves(self._playing().numbers, self.rules)
        return list(dict.fromkeys(str(move) for move in found if move.result is not None))

    def expert_action(self) -> str:
        """The next step of a solution; where there is none, the first legal action."""
        now = self._playing()
        found = solve(now.numbers, self.target, self.rules)
        return self.legal_actions()[0] if found is None else str(found)

    def check(self, goal: str) -> bool | None:
        """`have 16`: whether 16 is among the numbers left; `solvable`: whether the target can still
        be made. None for any other goal."""
        numbers = self._now.numbers
        if goal.strip() == "solvable":
            has_way = solve(numbers, self.target, self.rules) is not None
            return has_way or is_made(numbers, self.target)
        wanted = GOAL.fullmatch(goal.strip())
        value = None if wanted is None else number(wanted[1])
        return None if value is None else value in numbers

    def _shown(self) -> str:
        return shown(self.target, self._now.numbers)

    def _read(self, text: str) -> tuple[Move | None, str]:
        """The move that an action is, and what is wrong with it, if anything is."""
        said = parse(text, self.rules)
        if said is None:
            return None, "say a calculation such as calc 8 - 4"
        left, operation, right = said
        for wanted, needed in ((left, 1), (right, 1 + (left == right))):
            if self._now.numbers.count(wanted) < needed:
                return None, f"there is no {'other ' if needed > 1 else ''}{wanted}"
        result = calculate(left, operation, right, self.rules)
        what = "" if result is not None else f"{left} {operation} {right} is not allowed: the end"
        return Move(left, operation, right, result), what


# --- the game: exact fractions; what a model says is matched, never evaluated ---------------------


def parse(text: str, rules: Rules) -> tuple[Fraction, str, Fraction] | None:
    """Operands and operation of an action, None if it is no calculation.

    Operands of `-` come larger first, and so do those of `/` under restricted rules.
    """
    read = CALCULATION.fullmatch(text)
    if read is not None:
        left, operation, right = number(read[1]), read[2] or read[3], number(read[4])
    elif rules == "restricted" and (read := DIVISION.fullmatch(text)) is not None:
        left, operation, right = Fraction(int(read[1])), "/", Fraction(int(read[2]))
    else:
        return None
    if left is None or right is None:
        return None
    is_ordered = operation == "-" or (operation == "/" and rules == "restricted")
    return (right, operation, left) if is_ordered and left < right else (left, operation, right)


def number(text: str) -> Fraction | None:
    """`8` or `3/4` as an exact fraction; None for a denominator of zero."""
    over, _, under = text.partition("/")
    return Fraction(int(over), int(under or "1")) if int(under or "1") else None


def exact(numbers: Sequence[int]) -> Numbers:
    """Whole numbers as a state: sorted fractions."""
    return tuple(sorted(map(Fraction, numbers)))


def calculate(left: Fraction, operation: str, right: Fraction, rules: Rules) -> Fraction | None:
    """The result, or None for a division that is illegal.

    Differences are absolute. No solution is lost by that: what is made of a result whose sign was
    changed differs in sign only, where sums and differences change places.
    """
    match operation:
        case "+":
            return left + right
        case "-":
            return abs(left - right)
        case "*":
            return left * right
        case _:
            if right == 0:
                return None
            result = left / right
            return None if rules == "restricted" and result.denominator != 1 else result


def moves(numbers: Numbers, rules: Rules) -> Iterator[Move]:
    """Every action, the illegal ones included: pairs of places in order, each with `+-*/` in turn.

    24, 12 and 4 of them for 4, 3 and 2 numbers under restricted rules; full ones add the smaller by
    the larger to each pair.
    """
    for small, large in combinations(numbers, 2):
        for operation in OPERATIONS:
            result = calculate(large, operation, small, rules)
            yield Move(large, operation, small, result)
        if rules == "full":
            yield Move(small, "/", large, calculate(small, "/", large, rules))


def after(numbers: Numbers, move: Move) -> Numbers:
    """The numbers that are left when the result has taken the place of its operands; as they were
    if the move is illegal."""
    if move.result is None:
        return numbers
    left = list(numbers)
    left.remove(move.left)
    left.remove(move.right)
    return tuple(sorted([*left, move.result]))


@lru_cache(maxsize=1 << 18)
def solve(numbers: Numbers, target: int, rules: Rules) -> Move | None:
    """The first move of a solution, or None if there is none; one number left has none to make."""
    for move in moves(numbers, rules):
        if move.result is not None:
            rest = after(numbers, move)
            if is_made(rest, target) or solve(rest, target, rules) is not None:
                return move
    return None


def is_made(numbers: Numbers, target: int) -> bool:
    """Whether the target, and nothing else, is left."""
    return len(numbers) == 1 and numbers[0] == target


def shown(target: int, numbers: Numbers) -> str:
    """A state in words."""
    return f"make {target} from {' '.join(map(str, numbers))}"


def is_puzzle(numbers: object) -> bool:
    """Whether it is a list of two to six whole numbers above 0."""
    return (
        isinstance(numbers, list | tuple)
        and 2 <= len(numbers) <= 6
        and all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in numbers)
    )


# --- where puzzles come from ----------------------------------------------------------------------


@cache
def starts(dealt: Deal, held_out: frozenset[tuple[int, ...]] = frozenset()) -> Starts:
    """One walk per deal and process; sorted puzzles that are held out are passed over."""

    def begin(seed: int) -> Beginning | None:
        rng = Random(seed)
        drawn = tuple(sorted(rng.randint(1, dealt.largest) for _ in range(dealt.numbers)))
        numbers = exact(drawn)
        if drawn in held_out or solve(numbers, dealt.target, dealt.rules) is None:
            return None
        text = shown(dealt.target, numbers)
        return Beginning(digest(text), text, {"numbers": list(drawn)})

    settings = ", ".join(f"{name}={value}" for name, value in dealt._asdict().items())
    return Starts(begin, place="env", what=f"game24 with {settings}")


def read(path: Path) -> dict[Split, list[tuple[int, ...]]]:
    """The splits of a file of puzzles, each puzzle sorted and once.

    Raises:
        ConfigError: it cannot be read, holds something else, or two splits share a puzzle.
    """
    try:
        held = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"env.puzzles: cannot read {path} as JSON: {error}") from error
    if isinstance(held, Mapping) and "puzzles" in held:
        held = held["puzzles"]
    named = {"test": held} if isinstance(held, list) else held
    if not isinstance(named, Mapping) or not named or set(named) - set(SPLITS):
        raise ConfigError(
            f'env.puzzles: expected a list of puzzles or {{"test": [...]}} with some of train, '
            f"dev and test in {path}, got {held!r:.100}"
        )
    found: dict[Split, list[tuple[int, ...]]] = {}
    owner: dict[tuple[int, ...], Split] = {}
    for split in (s for s in SPLITS if s in named):
        for puzzle in named[split]:
            if not is_puzzle(puzzle):
                raise ConfigError(
                    f"env.puzzles: expected two to six whole numbers above 0 such as [4, 4, 6, 8] "
                    f"under {split} of {path}, got {puzzle!r:.100}"
                )
            key = tuple(sorted(puzzle))
            if owner.setdefault(key, split) != split:
                raise ConfigError(
                    f"env.puzzles: {list(key)} stands under both {owner[key]} and {split} of "
                    f"{path}; leave it in one of them"
                )
        found[split] = list(dict.fromkeys(tuple(sorted(p)) for p in named[split]))
    return found
