"""Countdown: make a target from the numbers dealt, one calculation a turn.

    make 24 from 8 5 3        calc 5 + 3
    make 24 from 8 8          calc 8 + 8
    make 24 from 16           ... missed

A calculation takes two of the numbers that are left and puts its result in their place. Results are
whole and positive: 3 - 8, 5 - 5 and 8 / 3 are refused, which costs a turn and nothing else. `calc`
may be left out; it is there so that every number follows a space and is the same token wherever it
stands. The game is that of "Stream of Search" (arXiv 2404.03683), played turn by turn.

`format: answer` and `format: trace` are the same tasks in a single turn, the two sides of "To
Backtrack or Not to Backtrack" (Qin et al. 2025, arXiv 2504.07052): the solution at once, or a
search written out, with its dead ends, before the solution. See `written.py`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Annotated, ClassVar, Literal, NamedTuple, cast

from annotated_types import Ge, Le, Lt

from agentrl.core.errors import ConfigError, EnvError
from agentrl.core.one_state import OneState
from agentrl.core.protocols import RunsIn
from agentrl.core.registry import register
from agentrl.core.starts import Tasks, digest
from agentrl.core.types import Action, Split, Step, Task
from agentrl.envs.countdown.game import (
    OPERATIONS,
    Calculation,
    Deal,
    Numbers,
    after,
    calculate,
    calculations,
    closeness,
    is_natural,
    key,
    solve,
    starts,
)
from agentrl.envs.countdown.written import (
    ANSWER_LINE,
    LONGEST,
    NO_EXPRESSION,
    Refused,
    Search,
    express,
    guesses,
    right_lines,
    search,
    shortest,
    value_of,
)

CALCULATION = re.compile(r"(?:calc +)?([0-9]{1,18}) *([-+*/]) *([0-9]{1,18})")
ANSWER = re.compile(r"answer +([0-9]{1,18})")
GOAL = re.compile(r"have +([0-9]{1,18})")
GUESSES = 32
"""Random lines of play that stand for all answers in a single turn."""


class Saved(NamedTuple):
    """A snapshot."""

    target: int
    numbers: Numbers
    turn: int
    is_over: bool


@register("env", "countdown")
@dataclass(kw_only=True)
class Countdown(OneState[Saved]):
    """Make a target from a few numbers, one calculation a turn (`calc 8 - 5`) or all in one."""

    runs_in: ClassVar[RunsIn] = "inline"
    cite: ClassVar[str] = (
        "Gandhi et al. 2024 (Stream of Search), arXiv 2404.03683; Qin et al. 2025, arXiv 2504.07052"
    )

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
    format: Literal["steps", "answer", "trace"] = "steps"
    """A calculation a turn (`steps`), or one message: the solution (`answer 8 * ( 5 - 2 )`), or a
    `trace`, a line for each calculation of a search (`8 5 2 | 5 - 2 = 3 | 8 3`), and then the
    solution. Only the solution decides the reward; metrics say how much of a trace is right."""
    search: Search = "dfs"
    """The search that the expert of `format: trace` writes out: depth or breadth first."""
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
        if self.format != "steps" and (self.turns is not None or self.ends != "reached"):
            raise ConfigError(
                f"env.turns, env.ends: they belong to env.format=steps; leave them out with "
                f"env.format={self.format}, which is one turn and ends with its answer"
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
        if self.format != "steps":
            return self._judge(text)
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
        reward = 0.0
        if self._now.is_over:
            reward = 1.0 if is_reached else self.shaping * closeness(numbers, now.target)
        return self._stepped(
            self._shown(),
            refusal=refusal,
            reward=reward,
            success=is_reached,
            terminated=terminated,
            truncated=truncated,
            metrics={"steps": float(turn)},
        )

    def state_key(self) -> str:
        """Target and numbers left, as in `24=8,5,3`; not the number of turns taken."""
        return key(self._now.target, self._now.numbers)

    def legal_actions(self) -> list[str]:
        """Every calculation that would be carried out, and the answers that can be given; in a
        single turn, of too many answers those of 32 random lines of play, the same each time."""
        now = self._playing()
        if self.format != "steps":
            rng = Random(digest(self.state_key()))
            return guesses(now.numbers, now.target, self.operations, rng, GUESSES)
        legal = [str(c) for c in calculations(now.numbers, self.operations)]
        if self.ends == "answer":
            legal += [f"answer {n}" for n in sorted(set(now.numbers), reverse=True)]
        return legal

    def expert_action(self) -> str:
        """The first step of a shortest solution; where none is left, the first legal action. In a
        single turn, all of it, or a search and what it found."""
        now = self._playing()
        if self.format != "steps":
            return self._demonstration()
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

    def hindsight(self, task: Task) -> Task | None:
        """The task whose target is the largest number that was made and could be one; None where
        nothing was made."""
        dealt = cast("Sequence[int]", task.data["numbers"])
        low, high = self.target_low, self.target_high
        made = [n for n in self._now.numbers if n not in dealt and low <= n <= high]
        if not made or max(made) == self._now.target or self.format != "steps":
            return None
        target = max(made)
        text = f"make {target} from {' '.join(map(str, dealt))}"
        return task.in_hindsight(str(target), text, {"target": target})

    def _demonstration(self) -> str:
        """What the expert says in a single turn; the first guess where there is no solution."""
        now, lines = self._now, list[str]()
        if self.format == "trace":
            tried, way = search(now.numbers, now.target, self.operations, self.search)
            lines = [str(each) for each in tried]
        else:
            way = shortest(now.numbers, now.target, self.operations)
        return "\n".join([*lines, f"answer {express(way)}" if way else self.legal_actions()[0]])

    def _judge(self, text: str) -> Step:
        """The end of a single turn: the worth of its last line."""
        now = self._now
        *lines, last = [line.strip() for line in text[: LONGEST + 1].splitlines()] or [""]
        self._now = now._replace(turn=now.turn + 1, is_over=True)
        metrics = {"steps": float(self._now.turn)}
        if self.format == "trace":
            metrics["trace_lines"] = float(len(lines))
            right = right_lines(lines, now.numbers, self.operations)
            metrics["trace_right"] = right / len(lines) if lines else 0.0
        try:
            read = ANSWER_LINE.fullmatch(last)
            if read is None or len(text) > LONGEST or (lines and self.format == "answer"):
                raise Refused(NO_EXPRESSION)
            value = value_of(read[1], now.numbers, self.operations)
        except Refused as refusal:
            info = {"metrics": metrics, "success": False, "invalid_action": True}
            return Step(observation=str(refusal), terminated=True, info=info)
        is_right = value == now.target
        near = max(0.0, 1 - float(abs(value - now.target) / now.target))
        return Step(
            observation=f"that is {value}",
            reward=1.0 if is_right else self.shaping * near,
            terminated=True,
            info={"metrics": metrics, "success": is_right},
        )

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
