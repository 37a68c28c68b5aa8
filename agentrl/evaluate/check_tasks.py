"""Checks of `Env.tasks`: what a split holds, and what it shares with the others."""

from __future__ import annotations

import json
import pickle
import time
from collections.abc import Sequence
from itertools import combinations
from typing import cast

from agentrl.core.types import Task
from agentrl.evaluate.check_player import Bench, CheckFailedError, CheckSkippedError, require
from agentrl.rollout.calls import build

STARTS = 50
"""Starts of each split that are compared, fewer if they take more than `STARTS_S` seconds."""
STARTS_S = 1.0
LAZY_S = 2.0
"""Seconds within which a split gives its first tasks, once its modules are imported."""
LIST_LENGTH = 20_000
"""Tasks that a split may hold in memory at once."""


async def tasks_exist(bench: Bench) -> str:
    """A split has tasks, which are `Task` objects."""
    found = await bench.read(bench.split, bench.count)
    require(
        len(found),
        f"tasks in split {bench.split!r}",
        got="none: it is empty",
        mend=f"return a Task for each problem of tasks({bench.split!r})",
    )
    tasks = [found[index] for index in range(min(bench.count, len(found)))]
    for task in cast("Sequence[object]", tasks):
        require(
            isinstance(task, Task),
            "tasks() to hold Task objects",
            got=f"{task!r:.100}",
            mend="wrap it: Task(id=..., seed=..., data=...)",
        )
    bench.tasks = tasks
    return f"{len(found)} in {bench.split}"


async def task_ids_are_unique(bench: Bench) -> str:
    """No two tasks of a split have the same id."""
    ids = [task.id for task in await bench.first(bench.split, STARTS)]
    repeated = [one for one in ids if ids.count(one) > 1]
    require(
        not repeated,
        "another id for every task",
        got=f"{len(repeated)} tasks that share theirs: {', '.join(sorted(set(repeated))[:3])}",
        where=f"the first {len(ids)} tasks of {bench.split}",
        mend="put the seed or a running number into the id",
    )
    return f"{len(ids)} ids"


async def tasks_come_again(bench: Bench) -> str:
    """Asked again, in this env or in another copy of it, `tasks` gives the same."""
    for where, env in (("the same env", None), ("another copy of the env", build(bench.env))):
        again = await bench.first(bench.split, bench.count, env)
        differing = next((n for n, t in enumerate(bench.tasks) if again[n : n + 1] != [t]), None)
        require(
            differing is None,
            f"tasks({bench.split!r}) to give the same tasks when asked again",
            got=f"{again[differing or 0 :][:1]!r:.120}",
            where=f"task {differing} of {where}",
            mend="derive tasks from settings and seeds alone, by random.Random(seed)",
        )
    return f"{len(bench.tasks)} read three times"


async def tasks_are_lazy(bench: Bench) -> str:
    """A split is there at once, however many tasks it has."""
    limit = min(LAZY_S, bench.timeout_s / 2)
    began = time.monotonic()
    found = await bench.read(bench.split, 1, build(bench.env))
    seconds = time.monotonic() - began
    mend = "return a Sequence that makes task i when it is asked for it"
    require(
        seconds <= limit,
        f"the first task of {bench.split} within {limit:g} s",
        got=f"{seconds:.2g} s",
        mend=mend,
    )
    require(
        not isinstance(found, list | tuple) or len(found) <= LIST_LENGTH,
        f"a split of more than {LIST_LENGTH} tasks to make them as they are asked for",
        got=f"a {type(found).__name__} of {len(found)}",
        mend=mend,
    )
    return f"{seconds:.2f} s"


async def tasks_survive_json(bench: Bench) -> str:
    """What `Task.data` holds comes back from JSON as it was."""
    mend = "keep str, int, finite float, bool, None, lists and dicts with str keys in Task.data"
    for task in bench.tasks:
        try:
            thawed = json.loads(json.dumps(dict(task.data), allow_nan=False))
        except (TypeError, ValueError) as error:
            raise CheckFailedError(
                "JSON values in Task.data", got=str(error), where=f"task {task.id}", mend=mend
            ) from error
        require(
            thawed == task.data,
            f"data that reads back from JSON as {task.data!r:.120}",
            got=f"{thawed!r:.120}",
            where=f"task {task.id}",
            mend=mend,
        )
    return ""


async def tasks_survive_pickling(bench: Bench) -> str:
    """Tasks can be sent to other processes."""
    mend = "use plain Task objects of plain dicts, lists, strings and numbers"
    for task in bench.tasks:
        try:
            copy = pickle.loads(pickle.dumps(task))
        except (TypeError, ValueError, AttributeError, pickle.PicklingError) as error:
            raise CheckFailedError(
                "a task that can be pickled", got=str(error), where=f"task {task.id}", mend=mend
            ) from error
        require(
            copy == task,
            "the same task after pickling",
            got=f"{copy!r:.120}",
            where=f"task {task.id}",
            mend=mend,
        )
    return ""


async def splits_are_disjoint(bench: Bench) -> str:
    """No start of one split occurs in another."""
    splits = bench.env.splits
    if len(splits) < 2:
        raise CheckSkippedError(f"it has the split {splits[0]} alone")
    starts = {
        split: await _starts(bench, await bench.first(split, STARTS), STARTS_S / len(splits))
        for split in splits
    }
    shared = {
        (split, other): starts[split].keys() & starts[other].keys()
        for split, other in combinations(splits, 2)
    }
    overlap = ", ".join(f"{a}/{b} {len(keys)}" for (a, b), keys in shared.items())
    counts = ", ".join(f"{len(found)} {split}" for split, found in starts.items())
    for (split, other), keys in shared.items():
        if keys:
            one = next(key for key in starts[other] if key in keys)
            first, second = starts[split][one].id, starts[other][one].id
            unseen = "" if "state_key" in bench.able else "; if they differ unseen, add state_key()"
            raise CheckFailedError(
                f"no start of {split} among those of {other}",
                got=f"{len(keys)} of {len(starts[other])} (overlaps: {overlap})",
                where=f"task {second} of {other} begins as task {first} of {split}",
                mend=f"let a hash of the start decide its split{unseen}",
            )
    return f"overlaps: {overlap} among {counts} starts"


async def _starts(bench: Bench, tasks: Sequence[Task], seconds: float) -> dict[object, Task]:
    """The starts of these tasks by state key, or by all that is known of them."""
    found: dict[object, Task] = {}
    until = time.monotonic() + seconds
    async with bench.player() as player:
        for task in tasks:
            shown = await player.reset(task)
            content = (shown, task.instruction, task.answer, repr(sorted(task.data.items())))
            found.setdefault(await player.state_key() or content, task)
            if time.monotonic() > until:
                break
    return found
