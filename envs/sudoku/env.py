"""Sudoku, one placement a turn; what was placed can be taken back.

    fill rows , columns and boxes with 1 to 4
    1 . . 4                   place 1 2 3
    . . 2 .                   undo
    . 1 . .                   place 1 2 2
    4 . . .

`place ROW COLUMN DIGIT` fills an empty cell, `undo` takes the latest placement back. A digit that
its row, column or box has already is refused, which costs a turn. One that fits but is wrong is
not: the way on from there is to take it back. Every puzzle has exactly one solution.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Annotated, ClassVar, Literal, NamedTuple

from annotated_types import Ge

from agentrl.core.errors import ConfigError, EnvError
from agentrl.core.one_state import OneState
from agentrl.core.protocols import RunsIn
from agentrl.core.registry import register
from agentrl.core.starts import Beginning, Starts, Tasks, digest
from agentrl.core.types import Action, Split, Step, Task
from agentrl.envs.sudoku.grids import Grid, candidates, conflict, deal, is_sound, solve

PLACE = re.compile(r"(?:place +)?([0-9]) +([0-9]) +([0-9])")
GOAL = re.compile(r"have +([1-9]) +([1-9]) +([1-9])")
DEFAULT_GIVENS = {4: 6, 9: 36}
FEWEST_GIVENS = {4: 4, 9: 24}
"""4 is the least that a 4x4 puzzle with one solution can have; with fewer than 24, emptying cells
at random hardly ever finds a 9x9 puzzle."""


class Placement(NamedTuple):
    """A digit in a cell (counted from 0, row by row)."""

    cell: int
    digit: int


class Saved(NamedTuple):
    """A snapshot."""

    puzzle: Grid
    placed: tuple[Placement, ...]
    turn: int
    is_over: bool
    undone: Placement | None = None
    """What the turn before took back."""

    @property
    def grid(self) -> Grid:
        """Givens and placements."""
        cells = list(self.puzzle)
        for cell, digit in self.placed:
            cells[cell] = digit
        return tuple(cells)


@register("env", "sudoku")
@dataclass(kw_only=True)
class Sudoku(OneState[Saved]):
    """Fill a Sudoku, one placement a turn (`place 1 2 3`), taking back what was wrong (`undo`)."""

    runs_in: ClassVar[RunsIn] = "inline"

    size: Literal[4, 9] = 4
    """Rows, columns and digits: 4 or 9."""
    givens: Annotated[int, Ge(4)] | None = None
    """Digits that are given: fewer are harder. `none` is 6 of 16 (4 at least), or 36 of 81 (24 at
    least)."""
    turns: Annotated[int, Ge(1)] | None = None
    """Turns until truncation; `none` is three times the number of empty cells."""
    expert: Literal["fewest", "in_order", "search"] = "fewest"
    """How the expert plays: `fewest`, the right digit for the cell with the fewest candidates;
    `in_order`, the right digit for the first empty cell; `search`, depth first, without knowing the
    solution: the first empty cell, its smallest digit not tried yet, `undo` where none is left."""
    train_tasks: Annotated[int, Ge(1)] = 2_000
    """Length of the train split; each task is another start."""
    dev_tasks: Annotated[int, Ge(1)] = 200
    """Length of the dev split."""
    test_tasks: Annotated[int, Ge(1)] = 400
    """Length of the test split."""

    def __post_init__(self) -> None:
        least, cells = FEWEST_GIVENS[self.size], self.size**2
        self._givens = DEFAULT_GIVENS[self.size] if self.givens is None else self.givens
        if not least <= self._givens < cells:
            raise ConfigError(
                f"env.givens: with env.size={self.size} expected {least} to {cells - 1}, got "
                f"{self._givens}"
            )
        if self.turns is not None and self.turns < cells - self._givens:
            raise ConfigError(
                f"env.turns: {cells - self._givens} cells are empty and each takes a turn, got "
                f"{self.turns}"
            )
        self._now = Saved((), (), 0, True)

    def tasks(self, split: Split) -> Sequence[Task]:
        """Distinct puzzles; a hash of the puzzle decides its split (2:1:1)."""
        lengths = {"train": self.train_tasks, "dev": self.dev_tasks, "test": self.test_tasks}
        return Tasks("sudoku", split, lengths[split], starts(self.size, self._givens))

    def reset(self, task: Task) -> str:
        """Lay out `task.data`'s grid. Raises `EnvError` if it holds none that can be solved."""
        puzzle = _read(task.data.get("grid"), self.size)
        if puzzle is None:
            raise EnvError(
                f"sudoku: with env.size={self.size} a task's data needs a solvable grid of "
                f"{self.size**2} digits with . for empty cells, as in {{'grid': '1..4...'}}; task "
                f"{task.id} has {dict(task.data)!r:.200}"
            )
        self._now = Saved(puzzle, (), 0, False)
        return f"{self._goal}\n{self._shown()}"

    def step(self, action: Action) -> Step:
        """A placement or `undo`; anything else costs a turn and is reported invalid."""
        now = self._playing()
        placed, refusal = self._act(action.strip() if isinstance(action, str) else "")
        turn = now.turn + 1
        undone = now.placed[-1] if len(placed) < len(now.placed) else None
        moved = now._replace(placed=placed, turn=turn, undone=undone)
        is_full = 0 not in moved.grid
        empty = now.puzzle.count(0)
        truncated = not is_full and turn >= (self.turns or 3 * empty)
        self._now = moved._replace(is_over=is_full or truncated)
        return self._stepped(
            self._shown(),
            refusal=refusal,
            reward=1.0 if is_full else 0.0,
            success=is_full,
            terminated=is_full,
            truncated=truncated,
            metrics={"steps": float(turn), "filled": len(placed) / max(1, empty)},
        )

    def state_key(self) -> str:
        """The grid row by row: givens as digits, placements as letters; not their order."""
        cells = [str(d) if d else "." for d in self._now.puzzle]
        for cell, digit in self._now.placed:
            cells[cell] = "abcdefghi"[digit - 1]
        return "".join(cells)

    def legal_actions(self) -> list[str]:
        """Every placement that fits, and `undo` where something was placed."""
        now = self._playing()
        legal = [
            self._said(Placement(cell, digit))
            for cell, digits in candidates(now.grid, self.size).items()
            for digit in digits
        ]
        return [*legal, "undo"] if now.placed else legal

    def expert_action(self) -> str:
        """As `expert` says; where the solution guides it, `undo` while there is no way."""
        now = self._playing()
        grid = now.grid
        fits = candidates(grid, self.size)
        if self.expert == "search":
            cell = grid.index(0)
            tried = now.undone.digit if now.undone is not None and now.undone.cell == cell else 0
            untried = [d for d in fits[cell] if d > tried]
            if not untried and not now.placed:  # somebody took back what was right: begin again
                untried = fits[cell]
            return self._said(Placement(cell, untried[0])) if untried else "undo"
        solution = solve(grid, self.size)
        if solution is None:
            return "undo"
        is_in_order = self.expert == "in_order"
        cell = grid.index(0) if is_in_order else min(fits, key=lambda c: len(fits[c]))
        return self._said(Placement(cell, solution[cell]))

    def check(self, goal: str) -> bool | None:
        """`have 1 2 3`: whether row 1, column 2 holds a 3; `solvable`: whether nothing need be
        taken back. None for any other goal."""
        grid = self._now.grid
        if goal.strip() == "solvable":
            return solve(grid, self.size) is not None
        wanted = GOAL.fullmatch(goal.strip())
        if wanted is None or max(map(int, wanted.groups())) > self.size or not grid:
            return None
        row, column, digit = map(int, wanted.groups())
        return grid[(row - 1) * self.size + column - 1] == digit

    @property
    def _goal(self) -> str:
        return f"fill rows , columns and boxes with 1 to {self.size}"

    def _shown(self) -> str:
        cells = [str(d) if d else "." for d in self._now.grid]
        rows = (cells[i : i + self.size] for i in range(0, len(cells), self.size))
        return "\n".join(" ".join(row) for row in rows)

    def _said(self, placement: Placement) -> str:
        row, column = divmod(placement.cell, self.size)
        return f"place {row + 1} {column + 1} {placement.digit}"

    def _act(self, text: str) -> tuple[tuple[Placement, ...], str]:
        """The placements after an action, and why it was refused, if it was."""
        now = self._now
        if text == "undo":
            return now.placed[:-1], "" if now.placed else "there is nothing to undo"
        read = PLACE.fullmatch(text)
        numbers = [int(n) for n in read.groups()] if read is not None else [0]
        if not 1 <= min(numbers) <= max(numbers) <= self.size:
            return now.placed, f"say place ROW COLUMN DIGIT , each 1 to {self.size} , or undo"
        row, column, digit = numbers
        cell = (row - 1) * self.size + column - 1
        grid = now.grid
        if now.puzzle[cell]:
            return now.placed, f"{row} {column} is given"
        if grid[cell]:
            return now.placed, f"{row} {column} is filled"
        has = conflict(grid, cell, digit, self.size)
        if has:
            return now.placed, f"its {has} has a {digit}"
        return (*now.placed, Placement(cell, digit)), ""


def _read(text: object, size: int) -> Grid | None:
    """A puzzle from its text, None if it is none or has no solution."""
    if not isinstance(text, str) or len(text) != size**2:
        return None
    if not set(text) <= {".", *map(str, range(1, size + 1))} or "." not in text:
        return None
    grid = tuple(0 if c == "." else int(c) for c in text)
    return grid if is_sound(grid, size) and solve(grid, size) is not None else None


@cache
def starts(size: int, givens: int) -> Starts:
    """One walk per size, number of givens and process."""

    def begin(seed: int) -> Beginning | None:
        grid = deal(size, givens, Random(seed))
        if grid is None:
            return None
        text = "".join(str(d) if d else "." for d in grid)
        solution = solve(grid, size) or grid
        steps = [
            f"place {cell // size + 1} {cell % size + 1} {digit}"
            for cell, digit in enumerate(solution)
            if not grid[cell]
        ]
        return Beginning(digest(text), "", {"grid": text, "steps": steps})

    return Starts(begin, place="env", what=f"sudoku with size={size}, givens={givens}")
