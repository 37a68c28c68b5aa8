"""Sudoku grids as plain tuples: what fits where, solutions, and puzzles that have exactly one.

A grid is `size * size` digits, row by row, 0 where a cell is empty. `size` is 4 or 9.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache, lru_cache
from math import isqrt
from random import Random

Grid = tuple[int, ...]


def house(cell: int, size: int) -> tuple[int, int, int]:
    """Row, column and box of a cell, each counted from 0."""
    row, column = divmod(cell, size)
    side = isqrt(size)
    return row, column, row // side * side + column // side


@cache
def houses(size: int) -> tuple[tuple[int, int, int], ...]:
    """`house` of every cell."""
    return tuple(house(cell, size) for cell in range(size * size))


def conflict(grid: Sequence[int], cell: int, digit: int, size: int) -> str:
    """The first of `row`, `column` and `box` that has the digit in another cell; empty if none."""
    where = houses(size)
    for kind, name in enumerate(("row", "column", "box")):
        mine = where[cell][kind]
        for other, held in enumerate(grid):
            if held == digit and other != cell and where[other][kind] == mine:
                return name
    return ""


def is_sound(grid: Grid, size: int) -> bool:
    """Whether no digit stands twice in a house."""
    return not any(d and conflict(grid, cell, d, size) for cell, d in enumerate(grid))


def candidates(grid: Grid, size: int) -> dict[int, list[int]]:
    """The digits that fit into each empty cell; none of them need lead anywhere."""
    taken = _taken(grid, size)
    return {
        cell: [d for d in range(1, size + 1) if not taken[cell] >> d & 1]
        for cell, held in enumerate(grid)
        if not held
    }


def _taken(grid: Sequence[int], size: int) -> list[int]:
    """For each cell, the digits of its row, column and box as bits."""
    used: list[list[int]] = [[0] * size for _ in range(3)]
    for cell, digit in enumerate(grid):
        if digit:
            for kind, where in enumerate(houses(size)[cell]):
                used[kind][where] |= 1 << digit
    rows, columns, boxes = used
    return [rows[r] | columns[c] | boxes[b] for r, c, b in houses(size)]


def solutions(grid: Grid, size: int, rng: Random | None = None) -> Iterator[Grid]:
    """Every completion of a sound grid: the cell with the fewest candidates first, its digits in
    order, or as `rng` shuffles them."""
    where = houses(size)
    every = (1 << size + 1) - 2
    rows, columns, boxes = [every] * size, [every] * size, [every] * size
    cells, empty = list(grid), [cell for cell, digit in enumerate(grid) if not digit]
    for cell, digit in enumerate(grid):
        if digit:
            r, c, b = where[cell]
            rows[r] &= ~(1 << digit)
            columns[c] &= ~(1 << digit)
            boxes[b] &= ~(1 << digit)

    def fits(cell: int) -> int:
        r, c, b = where[cell]
        return rows[r] & columns[c] & boxes[b]

    def fill() -> Iterator[Grid]:
        if not empty:
            yield tuple(cells)
            return
        at = min(range(len(empty)), key=lambda i: fits(empty[i]).bit_count())
        cell = empty.pop(at)
        free = fits(cell)
        digits = [d for d in range(1, size + 1) if free >> d & 1]
        if rng is not None:
            rng.shuffle(digits)
        r, c, b = where[cell]
        for digit in digits:
            bit = 1 << digit
            cells[cell] = digit
            rows[r], columns[c], boxes[b] = rows[r] ^ bit, columns[c] ^ bit, boxes[b] ^ bit
            yield from fill()
            rows[r], columns[c], boxes[b] = rows[r] ^ bit, columns[c] ^ bit, boxes[b] ^ bit
        cells[cell] = 0
        empty.insert(at, cell)

    yield from fill()


@lru_cache(maxsize=1 << 14)
def solve(grid: Grid, size: int) -> Grid | None:
    """The first completion of a sound grid, or None."""
    return next(solutions(grid, size), None)


def deal(size: int, givens: int, rng: Random) -> Grid | None:
    """A puzzle with `givens` digits and one solution: cells of a random full grid are emptied in a
    random order, each for as long as no second solution appears. None if too many must stay."""
    cells = list(next(solutions((0,) * (size * size), size, rng)))
    order = list(range(size * size))
    rng.shuffle(order)
    left = size * size
    for cell in order:
        if left == givens:
            break
        digit, cells[cell] = cells[cell], 0
        if _has_other(cells, cell, digit, size):
            cells[cell] = digit
        else:
            left -= 1
    return tuple(cells) if left == givens else None


def _has_other(cells: list[int], cell: int, digit: int, size: int) -> bool:
    """Whether a solution has another digit in this empty cell."""
    taken = _taken(cells, size)[cell]
    for other in range(1, size + 1):
        if other != digit and not taken >> other & 1:
            cells[cell] = other
            found = next(solutions(tuple(cells), size), None)
            cells[cell] = 0
            if found is not None:
                return True
    return False
