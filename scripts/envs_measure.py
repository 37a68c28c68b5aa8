"""Play every environment by its expert and at random, and keep what was seen in small JSON files.

python scripts/envs_measure.py                   # every environment that can be played here
python scripts/envs_measure.py babyai tools      # these
python scripts/envs_measure.py --episodes 20     # fewer episodes

The pages of docs/envs are written from these files (scripts/envs_page.py), so that they need no
package and no time. An environment that cannot be played here keeps the figures that it has.

Episodes are played without a model and without a runner: `reset` and `step` alone, one after
another, on the first tasks of the test split; each is reset once before it is timed, since some
games are made then and kept. A seat plays until it has its episodes or its time is over.
"""

from __future__ import annotations

import argparse
import asyncio
import inspect
import json
import os
import platform
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from random import Random

from agentrl.core.config import load_alone
from agentrl.core.errors import AgentRLError
from agentrl.core.protocols import Env, abilities
from agentrl.core.registry import find, names
from agentrl.core.types import Action, Observation, Task
from agentrl.envs.elsewhere import Elsewhere
from agentrl.evaluate.statistics import wilson
from agentrl.rollout.answers import as_observation, as_step

KEPT = Path(__file__).parents[1] / "docs" / "results" / "envs"
CASES = {
    "babyai": ("level=GoToObj", "level=GoToLocalS6N2", "level=GoToLocal cap=32"),
    "bfcl": ("category=simple_python", "category=parallel", "category=multi_turn_base"),
    "countdown": (
        "numbers=3",
        "numbers=5 target_low=100 target_high=999",
        "format=answer",
        "numbers=3 format=trace",
    ),
    "tools": ("steps=2", "steps_low=3 steps=3 together=1.0 infeasible=0.0"),
    "game24": ("rules=restricted", "rules=full"),
    "sudoku": ("givens=8", "size=9"),
    "webapps": (
        "layout=phone",
        "layout=desktop",
        "layout=phone steps_low=12 steps=20",
        "layout=phone asks=question",
        "layout=desktop asks=impossible",
    ),
    "miniwob": ("task=click-button", "task=click-tab-2", "task=login-user observe=axtree"),
    "browsergym": ("id=miniwob.click-button", "id=miniwob.click-button slow_mo_ms=0 delay_s=0.05"),
    "gymnasium": ("id=FrozenLake-v1", "id=Taxi-v4", "id=Taxi-v4 show=ansi"),
    "textworld": (
        *("game=coin", "game=coin prose=plain", "game=treasure", "game=cooking"),
        "game=coin level=220 turns=25 prose=plain",
    ),
    "scienceworld": ("task=find-living-thing", "task=all variations=1 turns=200"),
    "reasoning_gym": ("dataset=chain_sum", "dataset=countdown", "dataset=zebra_puzzles"),
}
"""Settings that are measured; of other environments the defaults."""
UNPLAYED = {"mixture", "openenv", "program", "trl_environment"}
"""These play what they are given."""
MOST_TURNS = 4
"""Turns of the expert's episode that are kept, the last ones included."""
CAP = 400
"""Turns after which an episode is left."""
LEGAL = 12
"""Legal actions of the first state that are kept."""
LOST = 12
"""Tasks that the expert did not solve which are kept by name."""


@dataclass
class Seen:
    """What a seat saw."""

    successes: list[bool] = field(default_factory=list)
    turns: list[int] = field(default_factory=list)
    returns: list[float] = field(default_factory=list)
    rewards: set[float] = field(default_factory=set)
    reset_s: list[float] = field(default_factory=list)
    step_s: list[float] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    """Tasks that were not solved."""
    paid_early: bool = False
    """Whether a reward other than 0 came before the last turn."""

    def to_json(self) -> dict[str, object]:
        """Shares, ranges and medians."""
        low, high = wilson(sum(self.successes), len(self.successes))
        spent = sum(self.reset_s) + sum(self.step_s)
        return {
            "episodes": len(self.successes),
            "successes": sum(self.successes),
            "low": round(low, 4),
            "high": round(high, 4),
            "turns": round(statistics.fmean(self.turns), 2),
            "return": [round(min(self.returns), 4), round(max(self.returns), 4)],
            "reward": [round(min(self.rewards), 4), round(max(self.rewards), 4)],
            "paid_early": self.paid_early,
            "episodes_per_s": float(f"{len(self.successes) / spent:.3g}"),
            "reset_ms": float(f"{1e3 * statistics.median(self.reset_s):.3g}"),
            "step_ms": float(f"{1e3 * statistics.median(self.step_s):.3g}"),
        }


LOOP = asyncio.Runner()
"""Where asynchronous environments run."""


def now(value: object) -> object:
    """What an environment answered, or what its coroutine comes to."""
    return LOOP.run(_awaited(value)) if inspect.isawaitable(value) else value


async def _awaited(value: Awaitable[object]) -> object:
    return await value


def played(
    env: Env, tasks: Sequence[Task], choose: Callable[[int], Action], count: int, limit_s: float
) -> Seen:
    """Episodes of the first tasks."""
    seen, began = Seen(), time.perf_counter()
    for number in range(min(count, len(tasks))):
        if number >= 3 and time.perf_counter() - began > limit_s:
            break
        _one(env, tasks[number], lambda: choose(number), seen)  # noqa: B023 - called at once
    return seen


def _one(env: Env, task: Task, choose: Callable[[], Action], seen: Seen) -> None:
    now(env.reset(task))  # what is made once for a task and kept is not timed
    began = time.perf_counter()
    now(env.reset(task))
    seen.reset_s.append(time.perf_counter() - began)
    total, success, turns, is_over = 0.0, False, 0, False
    while not is_over and turns < CAP:
        action = choose()
        began = time.perf_counter()
        step = as_step(now(env.step(action)))
        seen.step_s.append(time.perf_counter() - began)
        turns += 1
        is_over = step.terminated or step.truncated
        success = bool(step.info.get("success", success))
        total += step.reward
        seen.rewards.add(step.reward)
        seen.paid_early |= bool(step.reward) and not is_over
    seen.successes.append(success)
    seen.lost += [] if success else [f"`{task.id}` (return {total:.3g} in {turns} turns)"]
    seen.turns.append(turns)
    seen.returns.append(total)


def told(observation: Observation | str) -> str:
    """What a model is shown, several messages one below the other."""
    seen = as_observation(observation)
    if seen.messages is None:
        return seen.text
    return "\n".join(f"[{message.role}] {message.text}" for message in seen.messages)


def episode(env: Env, task: Task) -> list[str]:
    """A task as its expert plays it."""
    shown = [told(now(env.reset(task)))]  # type: ignore[arg-type]
    while True:
        action = env.expert_action()  # type: ignore[attr-defined]
        step = as_step(now(env.step(action)))
        end = f"   (reward {step.reward:g})" if step.reward or step.terminated else ""
        shown.append(f"> {action}{end}\n{told(step.observation)}")
        if step.terminated or step.truncated:
            shown[-1] = f"> {action}{end}"
            break
    cut = len(shown) - 1 - MOST_TURNS
    if cut > 0:
        shown[MOST_TURNS - 1 : -2] = [f"... {cut} turns ..."]
    return shown


def measured(name: str, settings: str, episodes: int, limit_s: float) -> dict[str, object]:
    """One environment under some settings."""
    env = load_alone(name, settings.split()).env
    able = abilities(env)
    split = "dev" if "dev" in env.splits else "test"
    first = env.tasks(split)[0]
    found: dict[str, object] = {
        "settings": settings,
        "split": split,
        "tasks": {split: len(env.tasks(split)) for split in env.splits},
        "first": told(now(env.reset(first))),  # type: ignore[arg-type]
    }
    if "tools" in able:
        found["tools"] = [tool["name"] for tool in env.tools(first)]  # type: ignore[attr-defined]
    if "legal_actions" in able:
        legal = env.legal_actions()  # type: ignore[attr-defined]
        found["legal"] = [str(one) for one in legal[:LEGAL]]
        found["legal_count"] = len(legal)
    tasks = env.tasks("test" if "test" in env.splits else split)
    if "expert_action" in able:
        found["episode"] = episode(env, first)
        expert = played(env, tasks, lambda _: env.expert_action(), episodes, limit_s)  # type: ignore[attr-defined]
        found["expert"] = {**expert.to_json(), "unsolved": expert.lost[:LOST]}
    if "legal_actions" in able:
        rng = Random(0)
        chosen = lambda _: rng.choice(env.legal_actions())  # type: ignore[attr-defined]  # noqa: E731
        found["random"] = played(env, tasks, chosen, episodes, limit_s).to_json()
    now(env.close())
    return found


def keep(name: str, episodes: int, limit_s: float) -> str:
    """Measure and write; what to say of it."""
    if issubclass(find("env", name), Elsewhere) or name in UNPLAYED:
        return f"{name}: nothing to play"
    load = os.getloadavg()[0]
    try:
        cases = [measured(name, s, episodes, limit_s) for s in CASES.get(name, ("",))]
    except AgentRLError as error:
        return f"{name}: keeps the figures that it has ({error})"
    module = inspect.getmodule(find("env", name))
    kept = {
        "env": name,
        "module": module.__name__ if module else "",
        "cases": cases,
        "machine": {"cores": len(os.sched_getaffinity(0)), "load": round(load, 1)},
        "versions": versions(),
    }
    KEPT.mkdir(parents=True, exist_ok=True)
    (KEPT / f"{name}.json").write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n")
    return f"{name}: {len(cases)} settings"


def versions() -> dict[str, str]:
    """Of whatever may have been played."""
    found = {"python": platform.python_version()}
    games = ("textworld", "scienceworld")
    packages = (
        *("agentrl", "minigrid", "gymnasium", "miniwob", "browsergym-core", "reasoning-gym"),
        *games,
    )
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def main() -> None:
    """Measure what can be measured."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help="environments (all)")
    parser.add_argument("--episodes", type=int, default=200, help="of a seat (%(default)s)")
    parser.add_argument("--limit", type=float, default=20.0, help="seconds of a seat (%(default)s)")
    arguments = parser.parse_args()
    for name in arguments.names or names("env"):
        print(keep(name, arguments.episodes, arguments.limit), flush=True)


if __name__ == "__main__":
    main()
