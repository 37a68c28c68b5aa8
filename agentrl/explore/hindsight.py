"""What was reached on the way was a goal of somebody else's: further tasks from one that was
explored.

A cell that does not solve its task often solves another one from the same start. An env with the
ability `hindsight` names that task; the way to the cell is then a way to a success, and is played
again under the new task, whose own check decides (Hindsight Experience Replay, Andrychowicz et al.
2017, arXiv 1707.01495, strategy "future" over an archive). Prompts are rendered anew with the new
goal. Such a task carries the name of the one it came from (`Task.hindsight_of`), and a group of it
is refused by training: its actions were not chosen for that goal, so it is nothing but a
demonstration.
"""

from __future__ import annotations

from random import Random

from agentrl.core.errors import EnvError
from agentrl.core.exploring import Found
from agentrl.core.graph import Cell, StateGraph
from agentrl.explore.ground import DivergedError, Ground

TRIES = 4
"""Cells that are looked at for each task that is wanted."""


async def reached(
    ground: Ground, graph: StateGraph, cells: list[Cell], count: int, rng: Random
) -> list[Found]:
    """At most `count` tasks that ways to the cells solve, each by the shortest that was looked at;
    every depth is as likely. What a cell cost that solves none is the explored task's.

    Args:
        cells: those of the graph that can be returned to; the start is none of them.

    Raises:
        EnvError: the env broke, or what it answered is no task of hindsight.
    """
    found: dict[str, Found] = {}
    by_depth: dict[int, list[Cell]] = {}
    for cell in cells:
        by_depth.setdefault(cell.depth, []).append(cell)
    for _ in range(TRIES * count):
        if len(found) >= count or not by_depth:
            break
        depth = rng.choice(sorted(by_depth))
        cell = by_depth[depth].pop(rng.randrange(len(by_depth[depth])))
        if not by_depth[depth]:
            del by_depth[depth]
        before = ground.steps
        try:
            await ground.back_to(cell)
        except DivergedError:
            continue
        task = await ground.hindsight()
        if task is None:
            continue
        if task.hindsight_of != ground.task.id:
            raise EnvError(
                f"hindsight() of task {ground.task.id} gave task {task.id}, whose hindsight_of is "
                f"{task.hindsight_of!r}; use task.in_hindsight(...)"
            )
        steps = ground.steps - before
        taken = cell.actions()
        shortest = graph.way(graph.start.key, cell.key) or taken
        ways = tuple(dict.fromkeys((tuple(shortest), tuple(taken))))
        known = found.get(task.id)
        if known is not None:
            ways = min(known.ways, ways, key=lambda each: len(each[0]))
            steps += known.steps
        found[task.id] = Found(task=task, ways=ways, steps=steps)
    return list(found.values())
