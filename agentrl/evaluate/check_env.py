"""`agentrl check-env`: whether an environment keeps what `core.protocols.Env` promises.

Each check is a function in `check_tasks.py`, `check_episodes.py`, `check_abilities.py` or
`check_runners.py`: it returns what it saw, or raises `CheckFailedError` or `CheckSkippedError`. How
an env is played for a check stands in `check_player.py`.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from enum import StrEnum
from textwrap import wrap

from agentrl.core.errors import AgentRLError, DeadlineError
from agentrl.core.protocols import Env
from agentrl.core.registry import slot_of
from agentrl.core.types import Json, Split
from agentrl.evaluate import check_abilities, check_episodes, check_runners, check_tasks
from agentrl.evaluate.check_player import TURNS, Bench, CheckFailedError, CheckSkippedError
from agentrl.rollout.runners import EnvRaisedError

MAX_BREAKS = 2
"""After so many checks in which the env hung or died, the others are skipped."""
SCHEMA = 1
"""Version of the JSON form of a report."""

Check = Callable[[Bench], Awaitable[str]]

CHECKS: tuple[Check, ...] = (
    check_tasks.tasks_exist,
    check_tasks.task_ids_are_unique,
    check_tasks.tasks_come_again,
    check_tasks.tasks_are_lazy,
    check_tasks.tasks_survive_json,
    check_tasks.tasks_survive_pickling,
    check_runners.runs_where_it_says,
    check_episodes.reset_shows_something,
    check_episodes.text_can_be_encoded,
    check_episodes.same_task_same_episode,
    check_episodes.another_task_is_another_episode,
    check_episodes.reset_forgets_what_was_played,
    check_episodes.tasks_are_left_alone,
    check_episodes.rewards_are_finite,
    check_episodes.metrics_are_numbers,
    check_episodes.the_end_says_success,
    check_episodes.success_is_true_or_false,
    check_episodes.an_episode_ends_in_one_way,
    check_episodes.step_after_the_end_raises,
    check_episodes.nonsense_is_flagged,
    check_episodes.odd_text_is_survived,
    check_episodes.closes_twice,
    check_episodes.reset_opens_what_was_closed,
    check_tasks.splits_are_disjoint,
    check_abilities.snapshot_equals_replay,
    check_abilities.restore_leaves_the_snapshot_alone,
    check_abilities.state_keys_tell_states_apart,
    check_abilities.looking_changes_nothing,
    check_abilities.the_expert_solves_tasks,
    check_abilities.expert_actions_are_valid,
    check_abilities.legal_actions_are_valid,
    check_abilities.tools_are_json_schemas,
    check_abilities.goals_hold_or_not,
    check_runners.every_runner_gives_the_same_episode,
    check_runners.another_process_gives_the_same_episode,
    check_runners.state_keys_hold_in_other_processes,
    check_runners.copies_share_nothing,
    check_runners.global_randomness_is_untouched,
    check_runners.closing_gives_back_what_was_open,
    check_runners.a_hanging_step_is_cut,
)
"""In the order in which they run and are reported."""


class Status(StrEnum):
    """How a check ended."""

    PASS = "pass"
    FAIL = "FAIL"
    SKIP = "skip"


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """One check: how it ended and what was seen; for a failure also how to mend it."""

    name: str
    promise: str
    """What the env promises."""
    status: Status
    seen: str
    """What was seen, or why it was skipped; for a failure what came instead of `expected`."""
    expected: str = ""
    where: str = ""
    mend: str = ""
    seconds: float = 0.0

    @property
    def reason(self) -> str:
        """All that is to be said of it, in one line."""
        if self.status is not Status.FAIL:
            return self.seen
        place = f" ({self.where})" if self.where else ""
        return f"expected {self.expected}, got {self.seen}{place}: {self.mend}"


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckReport:
    """All checks of one env, in order."""

    env: str
    results: tuple[CheckResult, ...]
    seconds: float
    shortest: int = TURNS
    """Turns that were compared of an episode at least; fewer than `TURNS` where they take long."""

    @property
    def passed(self) -> bool:
        """Whether no check failed."""
        return not self.of(Status.FAIL)

    def of(self, status: Status) -> list[CheckResult]:
        """The checks that ended so."""
        return [result for result in self.results if result.status is status]

    def lines(self, columns: int = 100) -> list[str]:
        """A line per check, what failed in full below it, and a last line that counts.

        What several checks met is written out once.
        """
        width = max(len(result.name) for result in self.results)
        lines: list[str] = []
        known: dict[str, str] = {}
        for result in self.results:
            head = f"{result.status}  {result.name:<{width}}  "
            first = known.setdefault(result.seen, result.name)
            if first != result.name and len(result.seen) > 40:
                lines.append(f"{head}as in: {first}")
            elif result.status is Status.FAIL:
                lines += [head.rstrip(), *_in_full(result, columns)]
            else:
                lines.append(f"{head}{result.seen}".rstrip())
        counts = ", ".join(f"{len(self.of(status))} {status.lower()}" for status in Status)
        slow = (
            f", episodes compared for {self.shortest} turns at least, not {TURNS}: they take long"
        )
        note = slow if self.shortest < TURNS else ""
        return [*lines, f"{self.env}: {counts} in {self.seconds:.1f} s{note}"]

    def to_json(self) -> dict[str, Json]:
        """The report as JSON values."""
        return {
            "schema": SCHEMA,
            "env": self.env,
            "passed": self.passed,
            "seconds": round(self.seconds, 3),
            "compared_turns": self.shortest,
            "counts": {status.lower(): len(self.of(status)) for status in Status},
            "checks": [{**asdict(r), "status": r.status.lower()} for r in self.results],
        }


def _in_full(result: CheckResult, columns: int) -> list[str]:
    parts = {
        "expected": result.expected,
        "got": result.seen,
        "where": result.where,
        "mend": result.mend,
    }
    lines = []
    for title, text in parts.items():
        first, *more = wrap(text, max(40, columns - 16)) or [""]
        if first:
            lines += [f"      {title:<8}  {first}", *(f"{'':16}{line}" for line in more)]
    return lines


def check_env(
    env: Env,
    *,
    split: Split | None = None,
    tasks: int = 5,
    timeout_s: float | None = None,
    may_spawn: bool = True,
) -> CheckReport:
    """Check an env on the first `tasks` tasks of a split.

    Args:
        env: a template; the checks run on copies of it.
        split: whose tasks are played; the first that the env has unless given.
        tasks: how many are played.
        timeout_s: deadline of each call; the env's own unless given.
        may_spawn: without it, checks that need another process are skipped, unless the env itself
            runs in processes.
    """
    slot_and_name = slot_of(type(env))
    name = slot_and_name[1] if slot_and_name else type(env).__name__
    began = time.monotonic()
    limit = timeout_s or env.timeout_s
    bench = Bench(
        env=env, split=split or env.splits[0], count=tasks, timeout_s=limit, may_spawn=may_spawn
    )
    results = asyncio.run(_all_checks(bench))
    return CheckReport(
        env=name,
        results=tuple(results),
        seconds=time.monotonic() - began,
        shortest=bench.shortest,
    )


async def _all_checks(bench: Bench) -> list[CheckResult]:
    try:
        return [await _checked(check, bench) for check in CHECKS]
    finally:
        await bench.close()


async def _checked(check: Check, bench: Bench) -> CheckResult:
    began = time.monotonic()
    promise = (inspect.getdoc(check) or "").replace("\n", " ")
    seen = expected = where = mend = ""
    try:
        if bench.breaks >= MAX_BREAKS:
            raise CheckSkippedError("the env hung or died in the checks before")
        if check is not check_tasks.tasks_exist and not bench.tasks:
            raise CheckSkippedError("there are no tasks")
        status, seen = Status.PASS, await check(bench)
    except CheckSkippedError as skipped:
        status, seen = Status.SKIP, str(skipped)
    except CheckFailedError as failed:
        status, seen = Status.FAIL, failed.got
        expected, where, mend = failed.expected, failed.where, failed.mend
    except AgentRLError as error:
        is_alive = isinstance(error, EnvRaisedError) or bench.env.runs_in != "process"
        bench.breaks += isinstance(error, DeadlineError) or not is_alive
        status, seen, expected, mend = Status.FAIL, str(error), promise, _mend(error)
    except Exception as error:  # noqa: BLE001 - what an env answers may break a check anywhere
        status, seen, expected = Status.FAIL, f"{type(error).__name__}: {error}", promise
        mend = "return what core/protocols.py says: the check could not read the answer"
    return CheckResult(
        name=check.__name__.replace("_", " "),
        promise=promise,
        status=status,
        seen=seen,
        expected=expected,
        where=where,
        mend=mend,
        seconds=round(time.monotonic() - began, 3),
    )


def _mend(error: AgentRLError) -> str:
    if isinstance(error, DeadlineError):
        return "make the call quicker, or raise the env's timeout_s"
    if isinstance(error, EnvRaisedError):
        return "mend the line that is named"
    return "see 'What the methods promise' in docs/add-an-env.md"
