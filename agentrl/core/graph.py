"""What was seen of a task's states: cells, the actions between them, and the best way to each.

Pure data, of one start. The archive keeps it on disk, explorers choose from it and add to it, and
credit compares what was done in the same state.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from agentrl.core.types import Action


@dataclass(frozen=True, slots=True, eq=False)
class Trail:
    """Actions from the start, the last one first; trails share what they have in common."""

    before: Trail | None
    action: Action
    length: int

    def actions(self) -> list[Action]:
        """In the order in which they are taken."""
        found: list[Action] = []
        trail: Trail | None = self
        while trail is not None:
            found.append(trail.action)
            trail = trail.before
        return found[::-1]


@dataclass(slots=True, eq=False)
class Cell:
    """A state by its key. `trail` is the best known way to it (None for the start), `score` the
    reward on that way; `tried` holds the actions that were taken here."""

    key: str
    trail: Trail | None = None
    score: float = 0.0
    seen: int = 0
    """Times it was entered."""
    chosen: int = 0
    """Times it was returned to."""
    since_new: int = 0
    """Times it was returned to since that last led to a new cell."""
    is_terminal: bool = False
    is_success: bool = False
    tried: dict[str, None] = field(default_factory=dict)
    led: int = 0
    """Times it was returned to and that led to a new cell."""
    found: int = 0
    """Env steps of the task when it was first entered."""
    legal: int | None = None
    """Actions that there are here; None where nobody asked."""
    text: str = ""
    """What the env showed here."""

    @property
    def is_frontier(self) -> bool:
        """Whether some action may not have been tried here."""
        return not self.is_terminal and (self.legal is None or len(self.tried) < self.legal)

    @property
    def depth(self) -> int:
        """Actions from the start."""
        return self.trail.length if self.trail is not None else 0

    def actions(self) -> list[Action]:
        """The best known way from the start."""
        return self.trail.actions() if self.trail is not None else []


class Visit(NamedTuple):
    """A cell that was returned to, and what was known when that ended. `cells` and `frontier` count
    those of the task, all and those with actions that were not tried; `step` counts env steps."""

    step: int
    source: str
    target: str
    """Where it ended."""
    cells: int
    frontier: int
    is_success: bool


class Added(NamedTuple):
    """A cell that was entered, the way that was really taken and its reward, and what is new."""

    cell: Cell
    way: Trail
    score: float
    is_new: bool
    is_better: bool
    """The way is the best one known to the cell now."""


class StateGraph:
    """Cells by key, and edges by action. The first cell is the start."""

    def __init__(self, start: str) -> None:
        self.start = Cell(key=start, seen=1)
        self.cells: dict[str, Cell] = {start: self.start}
        self.edges: dict[str, dict[str, tuple[str, Action]]] = {}
        """Source -> the action's text and target, apart from each other in what was seen."""
        self.visits: list[Visit] = []

    def __len__(self) -> int:
        return len(self.cells)

    def add(
        self,
        source: Cell,
        action: Action,
        key: str,
        *,
        reward: float = 0.0,
        trail: Trail | None = None,
        is_terminal: bool = False,
        is_success: bool = False,
        score: float | None = None,
    ) -> Added:
        """Note where `action` led from `source`.

        A cell is replaced where the new way has a higher score, or an equal one and is shorter; its
        counts of choices then begin anew (Go-Explore, Ecoffet et al. 2021, arXiv 1901.10995).

        Args:
            trail: the way that was really taken up to `source`; its best way otherwise.
            score: the reward on that way; that of `source` otherwise.
        """
        before = trail if trail is not None else source.trail
        total = (source.score if score is None else score) + reward
        way = Trail(before, action, (before.length if before is not None else 0) + 1)
        source.tried[as_text(action)] = None
        self.edges.setdefault(source.key, {})[f"{action!r} {key}"] = (key, action)
        cell = self.cells.get(key)
        is_new = cell is None
        if cell is None:
            cell = self.cells[key] = Cell(key=key)
        is_shorter = way.length < cell.depth
        is_better = is_new or total > cell.score or (total == cell.score and is_shorter)
        cell.seen += 1
        if is_better:
            cell.trail, cell.score = way, total
            cell.is_terminal, cell.is_success = is_terminal, is_success
            cell.chosen = cell.since_new = cell.led = 0
        return Added(cell, way, total, is_new, is_better)

    def neighbours(self, key: str) -> Iterator[tuple[str, Action]]:
        """Where actions led from a cell."""
        yield from self.edges.get(key, {}).values()

    def way(self, source: str, target: str, most: int | None = None) -> list[Action] | None:
        """The fewest actions from one cell to another, of those that were seen; None if there are
        none, or more than `most`."""
        if source == target:
            return []
        came: dict[str, tuple[str, Action]] = {}
        for here, action, there, depth in self._breadth_first(source):
            if most is not None and depth > most:
                return None
            came[there] = (here, action)
            if there == target:
                return _back(came, source, target)
        return None

    def distances(self, source: str, most: int | None = None) -> dict[str, int]:
        """Actions to every cell that can be reached, at most `most` away."""
        found = {source: 0}
        for _, _, there, depth in self._breadth_first(source):
            if most is not None and depth > most:
                break
            found[there] = depth
        return found

    def project(self, source: str, goal: str, within: int) -> str | None:
        """The farthest cell on the shortest way to `goal` that is at most `within` actions away
        (the adjacency limit of HRAC, Zhang et al. 2020, arXiv 2006.11485); None without a way."""
        actions = self.way(source, goal)
        if actions is None:
            return None
        here = source
        for action in actions[:within]:
            here = next(key for key, taken in self.neighbours(here) if taken == action)
        return here if len(actions) > within else goal

    def bridge(self, source: str, goal: str) -> str | None:
        """The cell `b` with the least `max(D(source, b), D(b, goal))`; None without a way."""
        there = self.distances(source)
        if goal not in there:
            return None
        back = {key: self.distances(key).get(goal) for key in there}
        ways = {key: max(there[key], d) for key, d in back.items() if d is not None}
        return min(ways, key=lambda key: (ways[key], there[key]))

    def _breadth_first(self, source: str) -> Iterator[tuple[str, Action, str, int]]:
        """Each cell when it is first reached: from where, by what, and after how many actions."""
        depth, waiting = {source: 0}, deque([source])
        while waiting:
            here = waiting.popleft()
            for there, action in self.neighbours(here):
                if there not in depth:
                    depth[there] = depth[here] + 1
                    waiting.append(there)
                    yield here, action, there, depth[there]


def as_text(action: Action) -> str:
    """An action as one string."""
    return action if isinstance(action, str) else "\n".join(action)


def _back(came: Mapping[str, tuple[str, Action]], source: str, target: str) -> list[Action]:
    actions: list[Action] = []
    while target != source:
        target, action = came[target]
        actions.append(action)
    return actions[::-1]


def steps_to(goal: Hashable, edges: Iterable[tuple[Hashable, Hashable]]) -> dict[Hashable, int]:
    """The fewest edges from each state to the goal; states without a way are not in it."""
    before: dict[Hashable, set[Hashable]] = {}
    for here, there in edges:
        before.setdefault(there, set()).add(here)
    found, waiting = {goal: 0}, deque([goal])
    while waiting:
        there = waiting.popleft()
        for here in before.get(there, ()):
            if here not in found:
                found[here] = found[there] + 1
                waiting.append(here)
    return found


def same_state(
    keys: Sequence[Sequence[str | None]], alike: Mapping[str, str] | None = None
) -> dict[str, list[tuple[int, int]]]:
    """Who was in the same state: key -> (trajectory, turn), in order.

    Args:
        keys: `[trajectory][turn]`; a turn without a key is left out.
        alike: key -> the key it counts as.
    """
    found: dict[str, list[tuple[int, int]]] = {}
    for i, own in enumerate(keys):
        for k, key in enumerate(own):
            if key is not None:
                found.setdefault((alike or {}).get(key, key), []).append((i, k))
    return found


def fuzzy(keys: Iterable[str], least: float) -> dict[str, str]:
    """Keys that are texts -> the first earlier one that is as similar as `least` (0..1), by
    difflib's ratio; itself otherwise."""
    firsts: list[str] = []
    found: dict[str, str] = {}
    for key in dict.fromkeys(keys):
        first = similar(key, firsts, least)
        if first is None:
            firsts.append(first := key)
        found[key] = first
    return found


def similar(key: str, firsts: Iterable[str], least: float) -> str | None:
    """The first of `firsts` that is as similar to `key` as `least` (0..1), by difflib's ratio."""
    from difflib import SequenceMatcher

    matcher = SequenceMatcher(b=key, autojunk=False)
    for first in firsts:
        matcher.set_seq1(first)
        bounds = matcher.real_quick_ratio, matcher.quick_ratio, matcher.ratio
        if all(bound() >= least for bound in bounds):
            return first
    return None
