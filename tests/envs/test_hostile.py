"""Ten thousand hostile episodes: no env crashes or hangs by what a model says, nothing leaks.

Each registered environment with text is played through the real worker, renderer and action format
by an adversary (`support/adversary.py`), under each rule for what is invalid; every episode is
counted and its rows hold exactly what was said and seen.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import ClassVar, cast

import pytest

from agentrl.core.config import load_alone
from agentrl.core.errors import MissingDataError, MissingExtraError
from agentrl.core.protocols import Env, RunsIn
from agentrl.core.registry import find, names
from agentrl.core.types import Action, Split, Step, Stop, Task
from agentrl.envs.elsewhere import Elsewhere
from agentrl.envs.scienceworld.jvm import POOL
from agentrl.rollout.calls import called
from support.adversary import MARKS, MIB, attacked, broken, enormous, hostile
from support.extras import needed_by
from support.held import Held

FURTHER = (
    "bfcl category=multi_turn_base",
    "countdown format=trace",
    "countdown format=answer",
    "game24 rules=full",
    "gymnasium id=Taxi-v4",
    "reasoning_gym dataset=countdown",
    "tools together=1.0 infeasible=0.0 ends=reached",
)
"""Settings beside the default ones of every environment."""
DEAR = {"textworld": 500, "scienceworld": 100}
"""Environments whose steps are slow: played in the long run only, and less often."""
KINDS = {name: cast("type[Env]", find("env", name)) for name in names("env")}
PLAYED = [
    name
    for name, kind in KINDS.items()
    if not issubclass(kind, Elsewhere) and kind.actions != "gui"
]
CASES = [*PLAYED, *FURTHER]
FEW = 12
MANY = 10_000
STYLES = ("appends", "forgets_reasoning", "trims")


def tasks_of(env: Env, count: int) -> list[Task]:
    """The first tasks, again from the first where there are fewer; skips without the package."""
    try:
        found = env.tasks(env.splits[-1])
        return [found[i % len(found)] for i in range(count)]
    except (MissingDataError, MissingExtraError) as error:
        pytest.skip(str(error))


def attack(case: str, count: int, seed: int, *, limit_s: float) -> None:
    """Every claim, on one environment."""
    name, *settings = case.split()
    if name == "openenv":
        pytest.importorskip("websockets", reason="needs agentrl[openenv]")
    env = load_alone(name, settings).env
    tasks = tasks_of(env, count)
    before = Held.now()
    style = STYLES[CASES.index(case) % len(STYLES)]
    found = attacked(env, tasks, seed=seed, limit_s=limit_s, style=style)
    with asyncio.Runner() as loop:
        called(loop, env, "close", ())
    POOL.close()  # Java processes, which are kept for the next env
    assert found.failures == {}, "what a model says is never an env's failure"
    assert sum(found.stops.values()) == found.episodes == found.checked == count
    assert not found.stops.keys() & {Stop.ERROR, Stop.TIMEOUT}
    assert 0 < found.invalid <= found.turns
    assert before.more() == ""


def shares() -> dict[str, int]:
    """Episodes of each case in the long run: `MANY` in all, where every package is there."""
    each = -(-(MANY - sum(DEAR.get(case, 0) for case in CASES)) // len(CHEAP))
    return {case: DEAR.get(case, each) for case in CASES}


def marked(cases: Sequence[str]) -> list[object]:
    """The cases, marked by the packages that they need."""
    return [pytest.param(case, marks=needed_by(case.split()[0])) for case in cases]


CHEAP = [case for case in CASES if case.split()[0] not in DEAR]


@pytest.mark.parametrize("case", marked(CHEAP))
def test_hostile_replies_harm_no_environment(case: str) -> None:
    attack(case, FEW, seed=1, limit_s=50)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("case", marked(CASES))
def test_thousands_of_hostile_replies_harm_no_environment(case: str) -> None:
    attack(case, shares()[case], seed=2, limit_s=580)


def test_the_long_run_has_ten_thousand_episodes_and_the_short_one_two_hundred() -> None:
    assert MANY <= sum(shares().values()) < MANY + len(CASES)
    assert FEW * len(CHEAP) >= 200


# --- that it would be found -----------------------------------------------------------------------


@dataclass(kw_only=True)
class Fragile(Env):
    """Breaks as `fault` says, by what is said to it."""

    runs_in: ClassVar[RunsIn] = "inline"
    fault: str = "none"

    def tasks(self, split: Split) -> Sequence[Task]:
        return [Task(id=f"fragile/{n}", seed=n) for n in range(100)]

    def reset(self, task: Task) -> str:
        return "say something"

    def step(self, action: Action) -> Step:
        text = str(action)
        if self.fault == "ascii":
            text.encode("ascii")
        if self.fault == "length" and len(text) > MIB // 2:
            raise MemoryError("too long")
        if self.fault == "int" and text.isdigit():
            int(text)
        if self.fault == "thread" and "<|" in text:
            threading.Thread(target=time.sleep, args=(1.0,), daemon=True).start()
        if self.fault == "file" and "<|" in text:
            os.dup(0)
        return Step(observation=text[:50], info={"invalid_action": True})


@pytest.mark.parametrize(
    ("fault", "error"),
    [("ascii", "UnicodeEncodeError"), ("length", "MemoryError"), ("int", "4300 digits")],
)
def test_an_environment_that_breaks_by_a_reply_is_found(fault: str, error: str) -> None:
    env = Fragile(fault=fault)
    found = attacked(env, env.tasks("test")[:100], seed=1, limit_s=50)
    assert any(error in failure for failure in found.failures), found.failures
    assert found.stops[Stop.ERROR] == sum(found.failures.values()) > 0
    assert found.episodes == sum(found.stops.values()) == 100


@pytest.mark.parametrize(("fault", "what"), [("thread", "threads"), ("file", "files")])
def test_what_stays_behind_is_found(fault: str, what: str) -> None:
    env = Fragile(fault=fault)
    before, open_before = Held.now(), set(os.listdir("/proc/self/fd"))
    attacked(env, env.tasks("test")[1:60], seed=1, limit_s=50)
    assert what in before.more(within_s=0.0)
    for number in set(os.listdir("/proc/self/fd")) - open_before if fault == "file" else ():
        os.close(int(number))
    assert before.more(within_s=5.0) == ""


def test_the_adversary_says_what_it_claims_to() -> None:
    said = [hostile(Random(seed), "calc 8 - 5") for seed in range(2_000)]
    assert len(set(said)) > 600
    assert all(len(text) <= MIB for text in said)
    for wanted in ("", "calc 8 - 5", "null"):
        assert wanted in said
    for part in (*MARKS, "Ignore all previous", "\u202e", "__import__", "[" * 3_000, "9" * 5_000):
        assert any(part in text for text in said), part
    assert {len(enormous(Random(seed)).encode()) // 2**19 for seed in range(20)} <= {1, 2}
    assert broken(Random(1), "calc 8 - 5") != "calc 8 - 5"
    for text in said:
        text.encode()
