"""What a proposer is asked while it explores: which state, which action, what is worth keeping."""

from __future__ import annotations

from collections.abc import Sequence

from agentrl.core.graph import Cell, as_text
from agentrl.core.starts import digest
from agentrl.core.types import Action
from agentrl.explore.asking import Asking

FORMAT = 'Answer with JSON and nothing else: {"choice": N}, where N is a whole number.'
"""How a choice is to be made; `parse_choice` reads it."""
KEEP = ("keep it", "leave it out")


def system_text(rules: str, instruction: str) -> str:
    """Rules, the three duties, and the form of an answer."""
    goal = f"The task: {instruction}" if instruction else ""
    duties = (
        "You lead a search with an archive of states (Go-Explore). You are asked three kinds of "
        "questions: to which state of the archive the search returns, which action is taken in a "
        "state, and whether a new state is worth keeping."
    )
    return "\n\n".join(part for part in (rules, goal, duties, FORMAT) if part)


async def ask_cell(asking: Asking, cells: Sequence[Cell], most: int) -> Cell:
    """The state that is returned to, of the `most` that were chosen least, the newest of equals;
    any of them where none was chosen."""
    newest = sorted(enumerate(cells), key=lambda pair: (pair[1].chosen, -pair[0]))[:most]
    offered = [cell for _, cell in sorted(newest, key=lambda pair: pair[0])]
    options = [
        f"{shown(cell)} ({cell.depth} actions from the start, seen {cell.seen} times)"
        for cell in offered
    ]
    text = f"States with actions that were not tried:\n{_numbered(options)}\nTo which one?"
    place = digest("\n".join(cell.key for cell in offered))
    return offered[await asking.choose("cell", place, text, options)]


async def ask_action(asking: Asking, cell: Cell, actions: Sequence[Action]) -> Action:
    """What is done in a state; any of the actions where none was chosen."""
    options = [as_text(action) for action in actions]
    text = f"The state: {shown(cell)}\n\nNot tried yet:\n{_numbered(options)}\nWhich one?"
    return actions[await asking.choose("action", cell.key, text, options, shown=cell.text)]


async def ask_keep(asking: Asking, cell: Cell, archive: Sequence[Cell], most: int) -> bool | None:
    """Whether a new state is interestingly new; None where nothing was decided."""
    known = "\n".join(f"- {shown(one)}" for one in archive[-most:])
    text = (
        f"The archive:\n{known}\n\nA new state: {shown(cell)}\n\n"
        "Is it interestingly new: part of a way to the goal, or a step towards one, and not close "
        f"to what is there? Leave out only what surely leads nowhere.\n{_numbered(KEEP)}"
    )
    choice = await asking.choice("keep", cell.key, text, KEEP, shown=cell.text)
    return None if choice is None else choice == 0


def shown(cell: Cell) -> str:
    """What the env showed in a cell, on one line; its key where that is nothing."""
    return " / ".join(cell.text.split("\n")) or cell.key


def _numbered(options: Sequence[str]) -> str:
    return "\n".join(f"{number}. {option}" for number, option in enumerate(options, start=1))
