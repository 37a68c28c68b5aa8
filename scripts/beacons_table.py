"""An offline table of subgoals for MiniGrid's DoorKey levels, as a teacher without faults gives it.

    python scripts/beacons_table.py --level DoorKey-6x6 --out beacons.jsonl
    agentrl train scripts/beacons.yaml bonus.proposer.path=beacons.jsonl

For each train task, in order: the key, the door, the goal; each as a place (`touched 2 1`), and as
a thing (`carrying yellow key`). `bonus.kind=position|object` chooses; `{name: noisy}` makes it
worse.
"""

import argparse
import json
from pathlib import Path

from agentrl.core.types import Task
from agentrl.envs.babyai import BabyAI
from agentrl.explore.goals import Goal, written
from agentrl.explore.tables import append_entry


def goals(env: BabyAI, task: Task) -> list[Goal]:
    """The subgoals of a task, places before things."""
    env.reset(task)
    game = env._game
    assert game is not None
    at = {}
    for place, cell in enumerate(game.grid.grid):
        if cell is not None and cell.type in ("key", "door", "goal"):
            at[cell.type] = (cell, place % game.width, place // game.width)
    key, door = at["key"][0], at["door"][0]
    things = {
        "key": (f"fetch the {key.color} key", f"carrying {key.color} key"),
        "door": (f"open the {door.color} door", f"open {door.color} door"),
        "goal": ("reach the goal", "reached goal"),
    }
    places = [
        Goal(text=f"go to the {name} at {x} {y}", predicate=f"touched {x} {y}", kind="position")
        for name, (_, x, y) in ((name, at[name]) for name in things)
    ]
    named = [Goal(text=text, predicate=what, kind="object") for text, what in things.values()]
    return [*places, *named]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--level", default="DoorKey-6x6")
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
