"""An offline table of subgoals for MiniGrid's levels of rooms, as a teacher without faults has it.

    python scripts/beacons_table.py --level MultiRoom-N2-S4 --out beacons.jsonl
    agentrl train scripts/beacons.yaml bonus.proposer.path=beacons.jsonl

For each train task, in order: the key if there is one, the doors on the way, the goal; each as a
place (`touched 2 1`), and as a thing (`carrying yellow key`). `bonus.kind=position|object` chooses;
`{name: noisy}` makes it worse. DoorKey and MultiRoom levels.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from agentrl.core.types import Task
from agentrl.envs.babyai import BabyAI
from agentrl.explore.goals import Goal, written
from agentrl.explore.tables import append_entry

THINGS = {
    "key": ("fetch the {} key", "carrying {} key"),
    "door": ("open the {} door", "open {} door"),
    "goal": ("reach the goal", "reached goal"),
}


def way(game: Any) -> Iterator[tuple[Any, int, int]]:
    """The things to come to, with their places, in order."""
    found = [
        (cell, place % game.width, place // game.width)
        for place, cell in enumerate(game.grid.grid)
        if cell is not None and cell.type in THINGS
    ]
    doors = [room.exitDoorPos for room in getattr(game, "rooms", [])]
    for name in THINGS:
        of_kind = [one for one in found if one[0].type == name]
        if name == "door" and doors:
            of_kind.sort(key=lambda one: doors.index((one[1], one[2])))
        yield from of_kind


def goals(env: BabyAI, task: Task) -> list[Goal]:
    """The subgoals of a task, places before things."""
    env.reset(task)
    places, things = [], []
    for cell, x, y in way(env._game):
        places.append(
            Goal(
                text=f"go to the {cell.type} at {x} {y}",
                predicate=f"touched {x} {y}",
                kind="position",
            )
        )
        text, what = (said.format(cell.color) for said in THINGS[cell.type])
        things.append(Goal(text=text, predicate=what, kind="object"))
    return [*places, *things]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--level", default="MultiRoom-N2-S4")
    parser.add_argument("--tasks", type=int, default=250)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    given.out.unlink(missing_ok=True)
    env = BabyAI(level=given.level, train_tasks=given.tasks)
    for task in env.tasks("train"):
        entry = {"kind": "subgoals", "task": task.id, "key": ""}
        append_entry(given.out, {**entry, "answer": written(goals(env, task))}, {"by": "oracle"})
    print(f"{given.tasks} tasks: {json.dumps(given.out.name)}")


if __name__ == "__main__":
    main()
