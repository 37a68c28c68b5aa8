"""Subgoals that somebody proposed are paid when they are reached, and only then."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le

from agentrl.core.exploring import Proposer, Voice, Watched
from agentrl.core.registry import register
from agentrl.core.seeds import derive_seed
from agentrl.core.shapes import Slot
from agentrl.core.types import Group, Sum, Task, Trajectory
from agentrl.explore.asking import Asking
from agentrl.explore.goals import Goal, goals_of, written
from agentrl.explore.verifiers import ORDER, How, Moment, Verdict, Verifier

logger = logging.getLogger(__name__)
AUDIT = "subgoals.jsonl"
ASK = """{instruction}

Name up to {most} subgoals on the way, in the order in which they are to be reached. Answer with a
JSON list and nothing else: [{{"text": "...", "predicate": "...", "kind": "position"}}, ...], where
kind is position, object or language and the predicate is a condition that can be checked.
{conditions}"""
JUDGE = """A goal: {goal}

Before the turn: {before}

After it: {after}

Did this turn reach the goal?
1. yes
2. no
Answer with JSON and nothing else: {{"choice": N}}."""


@register("bonus", "subgoals")
@dataclass(kw_only=True)
class Subgoals:
    """A turn that reaches the current subgoal of its task is worth `value (1 - n / horizon)`, n
    turns after the one before it was reached (Words as Beacons, Ruiz-Gonzalez et al. 2024, arXiv
    2410.08632). A proposer names the subgoals once for each task. They are reached one after
    another: one that is reached out of turn, that was true before its turn came, or that nobody
    saw reached is not paid.
    """

    proposer: Annotated[Proposer, Slot("proposer")]
    """Who names them."""
    kind: Literal["any", "position", "object", "language"] = "any"
    """Which of them count: places, things, or sentences."""
    value: Annotated[float, Gt(0), Le(1)] = 1.0
    """What a subgoal is worth that is reached at once (up to 1)."""
    horizon: Annotated[int, Ge(1)] = 100
    """Turns after which it is worth nothing more (the env's most turns, say)."""
    most: Annotated[int, Ge(1)] = 8
    """Subgoals of a task."""
    ordered: bool = True
    """They count in the order in which they were named; else in any, each once."""
    verifiers: tuple[How, ...] = ("predicate", "cell")
    """Who may say that one is reached, always asked in the order predicate, cell, caption, judge;
    the first that can tell decides."""
    least: Annotated[float, Ge(0), Le(1)] = 0.99
    """Likeness of a subgoal's text and what a turn changed in words (`caption`)."""
    conditions: str = ""
    """What the proposer is told of the predicates that the env knows."""
    judge_s: Annotated[float, Gt(0)] = 60.0
    """Seconds that a judge may take; later it is as if nobody had seen the goal reached."""
    counts: Counter[str] = field(default_factory=Counter, init=False, repr=False, compare=False)
    """Of tasks: `asked`, `misses` (nothing was named); of goals: `proposed`, `unknown` (nobody can
    ever tell)."""
    _goals: dict[str, list[Watched]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    _asked: dict[str, asyncio.Lock] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    _seen: Counter[str] = field(default_factory=Counter, init=False, repr=False, compare=False)
    _paid: list[dict[str, object]] = field(
        default_factory=list, init=False, repr=False, compare=False
    )
    _path: Path | None = field(default=None, init=False, repr=False, compare=False)
    _loop: asyncio.AbstractEventLoop | None = field(
        default=None, init=False, repr=False, compare=False
    )

    @property
    def needs(self) -> frozenset[str]:
        """What its verifiers look at."""
        wanted = {"cell": "state_keys", "caption": "texts", "judge": "texts"}
        return frozenset({"goals", *(wanted[how] for how in self.verifiers if how in wanted)})

    @property
    def verifier(self) -> Verifier:
        """Who may say that a goal is reached."""
        return Verifier(allowed=self.verifiers, least=self.least)

    async def start(self, folder: Path, voice: Voice | None) -> None:
        """Make the proposer ready; what is paid is written to `subgoals.jsonl` in the folder."""
        await self.proposer.start(folder, voice)
        self._path = folder / AUDIT
        self._loop = asyncio.get_running_loop()

    async def close(self) -> None:
        """Give back what the proposer holds."""
        await self.proposer.close()

    async def watch(self, task: Task) -> Sequence[Watched]:
        """The task's subgoals, which the proposer is asked for once."""
        async with self._asked.setdefault(task.id, asyncio.Lock()):
            if task.id not in self._goals:
                self._goals[task.id] = await self._propose(task)
        return self._goals[task.id]

    async def _propose(self, task: Task) -> list[Watched]:
        asking = Asking(
            proposer=self.proposer, task=task, rng=Random(derive_seed(0, "subgoals", task.id))
        )
        text = ASK.format(
            instruction=task.instruction or "A task.", most=self.most, conditions=self.conditions
        )
        said = await asking.answer("subgoals", "", text)
        self.counts["asked"] += 1
        goals = [
            replace(goal, proposer=type(self.proposer).__name__.lower())
            for goal in (goals_of(said) if said is not None else [])
            if self.kind in ("any", goal.kind)
        ][: self.most]
        self.counts["proposed"] += len(goals)
        self.counts["misses"] += not goals
        return [Watched(written([goal]), goal.predicate) for goal in goals]

    def rate(self, groups: Sequence[Group]) -> list[list[list[float]]]:
        """`[group][trajectory][turn]`, each 0 to `value`."""
        self._seen.clear()
        self._paid.clear()
        return [[self._rated(t) for t in group.trajectories] for group in groups]

    def observe(self, groups: Sequence[Group]) -> None:
        """Write down what was paid; nothing is remembered."""
        if self._path is None or not self._paid:
            return
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(line) + "\n" for line in self._paid)
        except OSError as error:
            logger.warning("subgoals: %s cannot be written: %s", self._path, error)

    def metrics(self) -> dict[str, Sum]:
        """Of the episodes that were rated last: goals named, reached and paid, by verifier."""
        seen, episodes = self._seen, float(self._seen["episodes"])
        names = ("named", "reached", "paid", "skipped", "expired", *ORDER)
        found = {f"bonus/goals_{name}": Sum(float(seen[name]), episodes) for name in names}
        tasks = float(self.counts["asked"])
        return found | {"bonus/goals_missing": Sum(float(self.counts["misses"]), tasks)}

    def _rated(self, trajectory: Trajectory) -> list[float]:
        goals = [goal for text in trajectory.goals for goal in read_goals(text)]
        self._seen["episodes"] += 1
        self._seen["named"] += len(goals)
        if not goals:
            return [0.0] * len(trajectory.turns)
        course = _Course(self, trajectory, goals)
        return [course.turn(k) for k in range(len(trajectory.turns))]

    def judged(self, goal: Goal, before: Moment, after: Moment, task: Task) -> bool | None:
        """What the proposer says as a judge; None without an answer."""
        if self._loop is None or not self._loop.is_running():
            return None
        text = JUDGE.format(goal=goal.text, before=before.text, after=after.text)
        asking = Asking(proposer=self.proposer, task=task, rng=Random(0))
        asked = asking.choice("judge", after.cell or "", text, ("yes", "no"))
        future = asyncio.run_coroutine_threadsafe(asked, self._loop)
        try:
            choice = future.result(self.judge_s)
        except TimeoutError:
            future.cancel()
            return None
        return None if choice is None else choice == 0

    def note(
        self, trajectory: Trajectory, k: int, goal: Goal, verdict: Verdict, pay: float
    ) -> None:
        """A goal was reached."""
        self._seen["reached"] += 1
        self._seen["paid"] += pay > 0
        self._seen[verdict.how or ""] += 1
        self._paid.append(
            {
                "task": trajectory.task.id,
                "turn": k + 1,
                "goal": goal.text,
                "predicate": goal.predicate,
                "kind": goal.kind,
                "proposer": goal.proposer,
                "how": verdict.how,
                "score": round(verdict.score, 4),
                "paid": round(pay, 6),
            }
        )

    def skip(self, why: Literal["skipped", "expired"]) -> None:
        """A goal's turn is over without it having been reached in its turn."""
        self._seen[why] += 1


class _Course:
    """The subgoals of one episode: which one is current, and since when."""

    def __init__(self, how: Subgoals, trajectory: Trajectory, goals: list[Goal]) -> None:
        self.how, self.trajectory, self.goals = how, trajectory, goals
        self.verifier = how.verifier
        self.left = list(range(len(goals)))
        self.since = 0
        """The turn, from 1, in which the last one was reached."""

    def turn(self, k: int) -> float:
        """What turn `k` is worth."""
        if not self.left:
            return 0.0
        self._pass_over(k)
        n = k + 1 - self.since
        pay = 0.0
        for place in self.left[:1] if self.how.ordered else list(self.left):
            goal = self.goals[place]
            verdict = self._verdict(goal, place, k)
            if verdict.reached:
                own = self.how.value * max(0.0, 1 - n / self.how.horizon)
                pay += own
                self.left.remove(place)
                self.since = k + 1
                self.how.note(self.trajectory, k, goal, verdict, own)
        return min(pay, self.how.value)

    def _pass_over(self, k: int) -> None:
        """Goals that hold already when their turn comes, and those whose time is up."""
        first = self.left[:1] if self.how.ordered else list(self.left)
        while first:
            place = first.pop(0)
            budget = self.goals[place].budget
            is_late = budget is not None and k + 1 - self.since > budget
            if not is_late and self._before(place, k).holds is not True:
                continue
            self.left.remove(place)
            self.how.skip("expired" if is_late else "skipped")
            if is_late:
                self.since = k
            if self.how.ordered:
                first = self.left[:1]

    def _verdict(self, goal: Goal, place: int, k: int) -> Verdict:
        before, after = self._before(place, k), self._after(place, k)
        succeeded = not self.trajectory.turns[k].invalid
        verdict = self.verifier.quick(goal, before, after, succeeded=succeeded)
        if verdict.how is not None or "judge" not in self.how.verifiers or not succeeded:
            return verdict
        said = self.how.judged(goal, before, after, self.trajectory.task)
        return verdict if said is None else Verdict(reached=said, how="judge", score=float(said))

    def _before(self, place: int, k: int) -> Moment:
        if k > 0:
            return self._after(place, k - 1)
        whole = self.trajectory
        cell = whole.turns[0].state_key
        return Moment(holds=_at(whole.held, place), cell=cell, text=whole.opening or "")

    def _after(self, place: int, k: int) -> Moment:
        turn = self.trajectory.turns[k]
        return Moment(holds=_at(turn.held, place), cell=turn.led_to, text=turn.heard or "")


def _at(held: Sequence[bool | None], place: int) -> bool | None:
    return held[place] if place < len(held) else None


@lru_cache(maxsize=4096)
def read_goals(text: str) -> tuple[Goal, ...]:
    """The goals that `written` wrote."""
    return tuple(goals_of(text))
