"""`agentrl check-env`: whether an environment keeps what `core.protocols.Env` promises.

Each check is one function below: it returns what it saw, or raises `CheckFailedError` or
`CheckSkippedError`. How an env is played for a check stands in `check_player.py`.
"""

from __future__ import annotations

import asyncio
import json
import math
import pickle
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations
from random import Random
from typing import cast

from agentrl.core.errors import AgentRLError, DeadlineError, EnvError
from agentrl.core.protocols import Env
from agentrl.core.registry import slot_of
from agentrl.core.types import Split, Task
from agentrl.evaluate.check_player import (
    END_TURNS,
    Bench,
    CheckFailedError,
    CheckSkippedError,
    is_end,
    require,
    same,
)
from agentrl.rollout.runners import EnvRaisedError, ProcessRunner, runner_for

SPLITS: tuple[Split, ...] = ("train", "dev", "test")
NONSENSE = ("", "no such action", '{"unclosed": [')
TURNS = 30
"""Turns of an episode that are compared."""
STARTS = 50
"""Starts of each split that are compared, fewer if they take more than `STARTS_S` seconds."""
STARTS_S = 10.0
EXPERT_RATE = 0.8
"""Share of tasks that an expert must solve."""
MAX_HANGS = 2
"""After so many checks that hung, the others are skipped."""


class Status(StrEnum):
    """How a check ended."""

    PASS = "pass"
    FAIL = "FAIL"
    SKIP = "skip"


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """One check: the promise, how it ended, and what was seen."""

    name: str
    status: Status
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckReport:
    """All checks of one env, in order."""

    env: str
    results: tuple[CheckResult, ...]

    @property
    def passed(self) -> bool:
        """Whether no check failed."""
        return not self.of(Status.FAIL)

    def of(self, status: Status) -> list[CheckResult]:
        """The checks that ended so."""
        return [result for result in self.results if result.status is status]

    def lines(self) -> list[str]:
        """One line per check (a reason is written out once) and a last one that counts."""
        width = max(len(result.name) for result in self.results)
        lines, known = [], set[str]()
        for result in self.results:
            is_known = len(result.reason) > 40 and result.reason in known
            known.add(result.reason)
            reason = "as above" if is_known else result.reason
            lines.append(f"{result.status}  {result.name:<{width}}  {reason}".rstrip())
        counts = ", ".join(f"{len(self.of(status))} {status.lower()}" for status in Status)
        return [*lines, f"{self.env}: {counts}"]


def check_env(
    env: Env, *, split: Split = "train", tasks: int = 5, timeout_s: float | None = None
) -> CheckReport:
    """Check an env on the first `tasks` tasks of a split.

    Args:
        env: a template; the checks run on copies of it.
        split: whose tasks are played.
        tasks: how many are played.
        timeout_s: deadline of each call; the env's own unless given.
    """
    slot_and_name = slot_of(type(env))
    name = slot_and_name[1] if slot_and_name else type(env).__name__
    results = asyncio.run(_all_checks(env, split, tasks, timeout_s))
    return CheckReport(env=name, results=tuple(results))


async def _all_checks(
    env: Env, split: Split, count: int, timeout_s: float | None
) -> list[CheckResult]:
    bench = Bench(env=env, split=split, count=count, timeout_s=timeout_s or env.timeout_s)
    results: list[CheckResult] = []
    for check in CHECKS:
        name = check.__name__.replace("_", " ")
        try:
            if bench.hangs >= MAX_HANGS:
                raise CheckSkippedError("the env hung in the checks before")
            if check is not tasks_exist and not bench.tasks:
                raise CheckSkippedError("there are no tasks")
            status, reason = Status.PASS, await check(bench)
        except CheckSkippedError as skipped:
            status, reason = Status.SKIP, str(skipped)
        except AgentRLError as error:
            bench.hangs += isinstance(error, DeadlineError)
            status, reason = Status.FAIL, str(error)
        except Exception as error:  # noqa: BLE001 - what an env answers may break a check anywhere
            status, reason = Status.FAIL, f"the check broke on {type(error).__name__}: {error}"
        results.append(CheckResult(name=name, status=status, reason=reason))
    return results


# --- the checks -----------------------------------------------------------------------------------


async def tasks_exist(bench: Bench) -> str:
    """A split has tasks; their ids are unique; asking again gives the same."""
    length, bench.tasks = await bench.read(bench.split, bench.count)
    require(length, f"tasks({bench.split!r}) is empty")
    for task in cast("Sequence[object]", bench.tasks):
        if not isinstance(task, Task):
            bench.tasks = []
            raise CheckFailedError(f"tasks must hold Task objects, got {task!r:.100}")
    ids = [task.id for task in bench.tasks]
    require(len(set(ids)) == len(ids), f"task ids must be unique, got {ids}")
    _, again = await bench.read(bench.split, bench.count)
    require(again == bench.tasks, "tasks() gave other tasks when asked again")
    return f"{length} in {bench.split}, {len(ids)} read twice"


async def tasks_can_be_stored(bench: Bench) -> str:
    """Tasks survive pickling, and their data JSON."""
    for task in bench.tasks:
        try:
            thawed = json.loads(json.dumps(dict(task.data), allow_nan=False))
            copy = pickle.loads(pickle.dumps(task))
        except (TypeError, ValueError, AttributeError, pickle.PicklingError) as error:
            raise CheckFailedError(
                f"task {task.id} cannot be stored ({error}): keep JSON values in Task.data"
            ) from error
        require(copy == task, f"task {task.id} is another one after pickling")
        require(
            thawed == task.data,
            f"task {task.id}: its data {task.data!r:.120} reads back from JSON as {thawed!r:.120}",
        )
    return ""


async def reset_shows_something(bench: Bench) -> str:
    """Reset gives an observation that isn't empty."""
    longest = 0
    async with bench.player() as player:
        for task in bench.tasks:
            shown = await player.reset(task)
            require(any(shown), f"reset of task {task.id} shows neither text nor picture")
            longest = max(longest, len(shown.text.split()))
    return f"{longest} words at most"


async def runs_where_it_says(bench: Bench) -> str:
    """The env opens in the runner that `runs_in` names."""
    async with bench.player(runner_for(bench.env)) as player:
        await player.reset(bench.tasks[0])
    return bench.env.runs_in


async def same_task_same_episode(bench: Bench) -> str:
    """The same actions give the same answers: in another copy, and after another episode."""
    turns = 0
    async with bench.player() as player, bench.player() as other:
        for task, next_task in zip(bench.tasks, bench.tasks[1:] + bench.tasks[:1], strict=True):
            first = await player.reset(task)
            actions, beats = await player.improvise(task, TURNS)
            require(await other.reset(task) == first, f"two copies show task {task.id} differently")
            same("two copies disagree", task, beats, await other.repeat(actions))
            await player.reset(next_task)
            await player.improvise(next_task, 2)
            require(
                await player.reset(task) == first,
                f"task {task.id} begins differently after another episode",
            )
            same("a second episode disagrees", task, beats, await player.repeat(actions))
            turns += len(beats)
    return f"{turns} turns of {len(bench.tasks)} tasks"


async def rewards_are_finite(bench: Bench) -> str:
    """Rewards are finite numbers."""
    seen: set[float] = set()
    async with bench.player() as player:
        for task in bench.tasks:
            await player.reset(task)
            for turn, step in enumerate(await player.finish(task)):
                require(
                    math.isfinite(step.reward),
                    f"turn {turn} of task {task.id} is rewarded {step.reward}",
                )
                seen.add(float(step.reward))
    return f"{min(seen):g} to {max(seen):g}"


async def the_end_says_success(bench: Bench) -> str:
    """A terminal step sets `info["success"]`."""
    ends = 0
    async with bench.player() as player:
        for task in bench.tasks:
            await player.reset(task)
            last = (await player.finish(task))[-1]
            ends += last.terminated or last.truncated
            require(
                not (last.terminated and last.truncated),
                f"the last step of task {task.id} is both terminated and truncated",
            )
            require(
                not last.terminated or isinstance(last.info.get("success"), bool),
                f"task {task.id} ended with success {last.info.get('success')!r}: a terminal step "
                "must set info['success'] to True or False",
            )
    if not ends:
        raise CheckSkippedError(f"no episode ended within {END_TURNS} turns")
    return f"{ends} of {len(bench.tasks)} episodes ended"


async def step_after_the_end_raises(bench: Bench) -> str:
    """An episode that is over cannot be played on."""
    task = bench.tasks[0]
    async with bench.player() as player:
        await player.reset(task)
        action = await player.choose(task, Random(0))
        last = (await player.finish(task))[-1]
        if not (last.terminated or last.truncated):
            raise CheckSkippedError(f"no episode ended within {END_TURNS} turns")
        try:
            await player.step(action)
        except EnvRaisedError as error:
            return error.kind
        raise CheckFailedError(
            f"step({action!r}) after the end of task {task.id} must raise RuntimeError"
        )


async def nonsense_is_survived(bench: Bench) -> str:
    """An action that means nothing does no harm; where actions are a closed set, it is reported."""
    reported = 0
    async with bench.player() as player:
        for nonsense in NONSENSE:
            await player.reset(bench.tasks[0])
            try:
                step = await player.step(nonsense)
            except EnvRaisedError as error:
                raise CheckFailedError(
                    f"{error}: report what an env does not understand by info['invalid_action']"
                ) from error
            is_reported = bool(step.info.get("invalid_action", False))
            reported += is_reported
            require(
                is_reported or "legal_actions" not in bench.able,
                f"step({nonsense!r}) is not among the legal actions, but its info has no "
                "'invalid_action': True",
            )
    return "reported as invalid" if reported == len(NONSENSE) else "some taken as answers"


async def closes_twice(bench: Bench) -> str:
    """Closing is harmless before a reset, within an episode, and when closed."""
    async with bench.player() as player:
        await player.call("close")
        await player.reset(bench.tasks[0])
        await player.call("close")
        await player.call("close")
    return ""


async def splits_are_disjoint(bench: Bench) -> str:
    """No start of one split occurs in another."""
    starts: dict[Split, dict[object, Task]] = {}
    for split in SPLITS:
        _, tasks = await bench.read(split, STARTS)
        starts[split] = await _starts(bench, tasks)
    for split, other in combinations(SPLITS, 2):
        shared = starts[split].keys() & starts[other].keys()
        if shared:
            one = next(iter(shared))
            advice = "; if they differ in what is not shown, add state_key()"
            raise CheckFailedError(
                f"{len(shared)} of {len(starts[other])} starts of {other} are also in {split}, "
                f"such as task {starts[other][one].id}, which is {starts[split][one].id}"
                f"{'' if 'state_key' in bench.able else advice}"
            )
    counts = ", ".join(f"{len(found)} {split}" for split, found in starts.items())
    return f"no overlap among {counts} starts"


async def _starts(bench: Bench, tasks: Sequence[Task]) -> dict[object, Task]:
    found: dict[object, Task] = {}
    until = time.monotonic() + STARTS_S
    async with bench.player() as player:
        for task in tasks:
            shown = await player.reset(task)
            content = (shown, task.instruction, task.answer, repr(sorted(task.data.items())))
            found.setdefault(await player.state_key() or content, task)
            if time.monotonic() > until:
                break
    return found


async def snapshot_equals_replay(bench: Bench) -> str:
    """What follows a restore is what followed the snapshot, and what a replay gives."""
    bench.need("snapshot", "restore")
    async with bench.player() as player, bench.player() as other:
        for task in bench.tasks:
            await player.reset(task)
            prefix, beats = await player.improvise(task, 3)
            if is_end(beats[-1]):
                prefix = prefix[:-1]
                await player.reset(task)
                await player.repeat(prefix)
            saved, key = await player.call("snapshot"), await player.state_key()
            actions, beats = await player.improvise(task, TURNS)
            await player.reset(bench.tasks[-1])
            await player.call("restore", saved)
            require(await player.state_key() == key, f"restore in task {task.id} changes the key")
            same("after a restore", task, beats, await player.repeat(actions))
            await player.call("restore", saved)
            same("after a second restore", task, beats, await player.repeat(actions))
            await other.reset(task)
            await other.repeat(prefix)
            same("snapshot and replay", task, beats, await other.repeat(actions))
    return f"{len(bench.tasks)} tasks"


async def state_keys_hold_in_other_processes(bench: Bench) -> str:
    """Another interpreter gives a state the same key."""
    bench.need("state_key")
    keys = 0
    async with bench.player() as here, AsyncExitStack() as stack:
        try:
            there = await stack.enter_async_context(bench.player(ProcessRunner()))
        except EnvError as error:
            if bench.env.runs_in == "process":
                raise
            raise CheckSkippedError(str(error)) from error
        for task in bench.tasks:
            await here.reset(task)
            await there.reset(task)
            pairs = [(await here.state_key(), await there.state_key())]
            actions, beats = await here.improvise(task, 3)
            repeated = await there.repeat(actions)
            pairs += [(a.state_key, b.state_key) for a, b in zip(beats, repeated, strict=True)]
            for one, other in pairs:
                require(isinstance(one, str), f"state_key() must give a str, got {one!r:.80}")
                require(
                    one == other,
                    f"a state of task {task.id} has the key {one!r:.80}, and {other!r:.80} in "
                    "another process (Python's hash() differs between processes: use hashlib)",
                )
            keys += len(pairs)
    return f"{keys} keys"


async def the_expert_solves_tasks(bench: Bench) -> str:
    """Following `expert_action` leads to success."""
    bench.need("expert_action")
    solved, turns = [], 0
    async with bench.player() as player:
        for task in bench.tasks:
            await player.reset(task)
            steps = await player.finish(task)
            solved.append(bool(steps[-1].info.get("success", False)))
            turns += len(steps)
    reason = f"{sum(solved)} of {len(solved)} tasks in {turns / len(solved):.3g} turns each"
    unsolved = [
        task.id for task, is_solved in zip(bench.tasks, solved, strict=True) if not is_solved
    ]
    require(
        sum(solved) >= EXPERT_RATE * len(solved),
        f"the expert solves {reason}, not {', '.join(unsolved)}: raise the env's limit of steps, "
        "or give this setting no expert_action",
    )
    return reason


async def legal_actions_are_valid(bench: Bench) -> str:
    """No action that `legal_actions` names is reported invalid."""
    bench.need("legal_actions")
    turns = 0
    async with bench.player() as player:
        for task in bench.tasks:
            rng, is_over = Random(task.id), False
            await player.reset(task)
            while not is_over and turns < TURNS * len(bench.tasks):
                action = await player.choose(task, rng)
                step = await player.step(action)
                require(
                    not step.info.get("invalid_action"),
                    f"{action!r} is legal in task {task.id} but step reports it as invalid",
                )
                turns += 1
                is_over = step.terminated or step.truncated
    return f"{turns} actions"


CHECKS: tuple[Callable[[Bench], Awaitable[str]], ...] = (
    tasks_exist,
    tasks_can_be_stored,
    runs_where_it_says,
    reset_shows_something,
    same_task_same_episode,
    rewards_are_finite,
    the_end_says_success,
    step_after_the_end_raises,
    nonsense_is_survived,
    closes_twice,
    splits_are_disjoint,
    snapshot_equals_replay,
    state_keys_hold_in_other_processes,
    the_expert_solves_tasks,
    legal_actions_are_valid,
)
"""In the order in which they run and are reported."""
