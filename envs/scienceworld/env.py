"""ScienceWorld: experiments of primary school in a simulated house, in text.

    Your task is to find a(n) living thing. First, focus on the thing. Then, move it to the red box
    in the kitchen.
    This room is called the workshop. In it, you see: ...
    > open door to hallway

Thirty tasks with thousands of variations in the package's own splits (Wang et al. 2022, arXiv
2203.07540; `pip install 'agentrl[scienceworld]'`, version 1.2.3, and a Java runtime). A score from
0 to 1 tells of subgoals that were reached; focusing on the wrong thing ends the episode at -1. A
hundred turns are the package's own limit, and four tasks' own solutions are longer. What is legal
are hundreds of actions, and asking for them takes some 0.1 s, more than acting does.

All worlds of this process live in a few Java processes (`jvm.py`). One that dies or hangs costs the
episode that asked it; the others do again in another one what they had done.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal, NamedTuple, TypeVar

from annotated_types import Ge, Gt

from agentrl.core.errors import ConfigError, EnvError, did_you_mean
from agentrl.core.protocols import Env, RunsIn
from agentrl.core.registry import register
from agentrl.core.starts import digest
from agentrl.core.types import Action, Split, Step, Task
from agentrl.envs.scienceworld.gold import Source, default_cache, solution
from agentrl.envs.scienceworld.jvm import POOL, TURNS, GoneError, Jvm, Value, classpath, java
from agentrl.envs.scienceworld.reach import within_reach
from agentrl.envs.scienceworld.tasks import chosen, variations

Answer = TypeVar("Answer")
SIMPLIFICATIONS = (
    *("easy", "teleportAction", "selfWateringFlowerPots", "openContainers", "openDoors"),
    "noElectricalAction",
)
LONGEST = 300
"""Characters of an action."""
UNKNOWN = "No known action matches that input."
REFUSED = re.compile(r"No known action matches|Unknown action")
ASKS_BACK = re.compile(r"^(\d+):\t", re.MULTILINE)
PRECISION = 1e-6
MOST_POSSIBLE = 128
"""States whose possible actions are remembered, for all worlds of this process."""
_POSSIBLE: dict[tuple[str, int, str, tuple[str, ...]], tuple[str, ...]] = {}


class Saved(NamedTuple):
    """A snapshot: what was done since the reset, and what came of it."""

    task: str
    variation: int
    actions: tuple[str, ...]
    said: str
    """The latest observation."""
    score: float
    is_over: bool


NOTHING = Saved("", 0, (), "", 0.0, True)


@register("env", "scienceworld")
@dataclass(kw_only=True)
class ScienceWorld(Env):
    """Primary-school science in a simulated house: thirty tasks, from boiling water to genetics."""

    runs_in: ClassVar[RunsIn] = "thread"
    timeout_s: ClassVar[float] = 240.0  # several resets may wait for Java to begin
    extra: ClassVar[str] = "scienceworld"
    licence: ClassVar[str] = "Apache-2.0 (ScienceWorld)"
    cite: ClassVar[str] = "Wang et al. 2022 (ScienceWorld), arXiv 2203.07540"

    task: str = "find-living-thing"
    """One of the thirty tasks, such as `boil`, `grow-plant`, `test-conductivity`, or `all`."""
    variations: Annotated[int, Ge(1)] | None = None
    """So many variations of each task and split, the first ones; `none` is all."""
    simplify: str = ""
    """The package's simplifications, joined by commas: `teleportAction`, `openDoors`,
    `openContainers`, `selfWateringFlowerPots`, `noElectricalAction`, or `easy` for all."""
    reward: Literal["score", "success"] = "score"
    """How far the score went up or down in this turn, or 1 for a score of 1."""
    turns: Annotated[int, Ge(1)] = 100
    """Turns until truncation."""
    jvms: Annotated[int, Ge(1)] = 2
    """Java processes at most, in each process that plays. More play more episodes at once."""
    heap_mib: Annotated[int, Ge(64)] = 512
    """What each may take for its worlds; one that needs more ends."""
    call_s: Annotated[float, Gt(0)] = 30.0
    """Seconds after which a Java process that does not answer is killed."""
    cache: Path | None = None
    """Where the simulator's own solutions are kept; `none` is `agentrl/scienceworld` in
    $XDG_CACHE_HOME, or in `~/.cache`."""

    def __post_init__(self) -> None:
        chosen(self.task)
        for one in filter(None, self.simplify.split(",")):
            if one not in SIMPLIFICATIONS:
                raise ConfigError(
                    f"env.simplify: there is no {one!r}{did_you_mean(one, SIMPLIFICATIONS)} "
                    f"(known: {', '.join(SIMPLIFICATIONS)}, joined by commas)"
                )
        self._now = NOTHING
        self._jvm: Jvm | None = None
        self._world = ""

    def tasks(self, split: Split) -> Sequence[Task]:
        """The package's own split, the first variation of every task before the second ones.

        Raises:
            MissingExtraError: scienceworld is not installed.
            MissingDataError: there is no Java runtime.
        """
        classpath()
        java()
        numbered = [
            (index, name, variation)
            for name in chosen(self.task)
            for index, variation in enumerate(variations(name, split)[: self.variations])
        ]
        return [
            Task(
                id=f"scienceworld/{name}/{variation}",
                seed=variation,
                data={"task": name, "variation": variation},
            )
            for _, name, variation in sorted(numbered)
        ]

    def reset(self, task: Task) -> str:
        """Load a variation. Raises `EnvError` for a task that names none."""
        name, variation = task.data.get("task"), task.data.get("variation")
        if not isinstance(name, str) or not isinstance(variation, int):
            raise EnvError(
                f"scienceworld: a task's data needs a task and a variation, as in {{'task': "
                f"'boil', 'variation': 0}}; {task.id} has {dict(task.data)!r:.200}"
            )
        chosen(name)
        self._now = Saved(name, variation, (), "", 0.0, False)
        self._load()
        about, look = self._ask("freeActionTaskDesc"), self._ask("freeActionLook")
        said = f"{re.sub('(?i)^task description:', '', str(about)).strip()}\n{look}"
        self._now = self._now._replace(said=said)
        return self._now.said

    def step(self, action: Action) -> Step:
        """An action in words; what the simulator does not know is reported invalid."""
        before = self._playing()
        said, score, completed = self._done(action if isinstance(action, str) else "")
        turn = len(self._now.actions)
        over = completed or score < 0
        truncated = not over and turn >= self.turns
        success = score >= 1 - PRECISION
        self._now = self._now._replace(is_over=over or truncated)
        assert self._jvm is not None
        metrics = {"steps": float(turn), "score": 100 * score, "jvm_mib": self._jvm.rss_mib}
        info: dict[str, object] = {"metrics": metrics}
        if REFUSED.match(said):
            info["invalid_action"] = True
        if self._now.is_over:
            info["success"] = success
        paid = score - before.score if self.reward == "score" else float(over and success)
        return Step(observation=said, reward=paid, terminated=over, truncated=truncated, info=info)

    def close(self) -> None:
        """Give the world back."""
        if self._jvm is not None:
            self._jvm.forget(self._world, self.call_s)
            POOL.tidy()
        self._now, self._jvm, self._world = NOTHING, None, ""

    def snapshot(self) -> Saved:
        """What was done since the reset."""
        return self._now

    def restore(self, snapshot: Saved) -> None:
        """Do again what was done. Raises `EnvError` if it leads elsewhere."""
        self._now = snapshot
        if snapshot.task:
            self._again()

    def state_key(self) -> str:
        """A hash of the variation, the score, and what is seen and carried."""
        now = self._now
        if not now.task:
            return ""
        asked = now.said if ASKS_BACK.search(now.said) else ""
        seen = [str(self._ask(f"freeAction{what}")) for what in ("Look", "Inventory")]
        state = [now.task, now.variation, self.simplify, round(now.score, 6), *seen, asked]
        return digest(json.dumps(state))

    def legal_actions(self) -> list[str]:
        """What the simulator says is possible and within reach (`reach.py`), sorted: hundreds of
        actions, some thousands."""
        now = self._playing()
        numbers = ASKS_BACK.findall(now.said) if now.actions else []
        return numbers or list(self._possible())

    def expert_action(self) -> str:
        """The next action of the simulator's own solution after those of it that were done."""
        now = self._playing()
        cache = str(self.cache.expanduser()) if self.cache else default_cache()
        limit = TURNS * self.call_s  # as long as others wait for the same process
        source = Source(cache, self.simplify, self.jvms, self.heap_mib, limit)
        gold = solution(source, now.task, now.variation)
        done = 0
        for action in now.actions:
            done += done < len(gold) and action == gold[done]
        return gold[done] if done < len(gold) else "look around"

    def check(self, goal: str) -> bool | None:
        """`score 0.5`: whether the score is as high. None for any other goal."""
        wanted = re.fullmatch(r"score +([01](?:\.\d+)?)", goal.strip())
        return self._now.score >= float(wanted[1]) - PRECISION if wanted else None

    def _playing(self) -> Saved:
        if self._now.is_over:
            raise RuntimeError(
                "scienceworld: the episode is over (or never began): call reset(task)"
            )
        return self._now

    def _possible(self) -> tuple[str, ...]:
        """Siblings are often where others were, and the simulator takes long for this."""
        now = self._now
        place = (now.task, now.variation, self.simplify, now.actions)
        known = _POSSIBLE.get(place)
        if known is None:
            known = self._tried(self._listed)
            while len(_POSSIBLE) >= MOST_POSSIBLE:
                _POSSIBLE.pop(next(iter(_POSSIBLE), place), None)
            _POSSIBLE[place] = known
        return known

    def _listed(self) -> tuple[str, ...]:
        assert self._jvm is not None
        told = json.loads(str(self._told("getValidActionObjectCombinationsJSON")))
        near = within_reach(self._jvm, self._world, self.call_s)
        valid = (one for one in told["validActions"] if near.issuperset(one["obj_ids"]))
        return tuple(sorted({str(one["action"]) for one in valid}))

    def _done(self, action: str) -> tuple[str, float, bool]:
        """Act: what is said, the score, and whether the simulator has ended the task."""
        text = " ".join(action.split())
        said = str(self._ask("step", text)) if 0 < len(text) <= LONGEST else UNKNOWN
        score = float(self._ask("getScore") or 0.0)
        completed = bool(self._ask("getCompleted"))
        actions = (*self._now.actions, text)
        self._now = self._now._replace(actions=actions, said=said, score=score)
        return said, score, completed

    def _load(self) -> None:
        """Load the variation, in another process if the last one has gone or is to end."""
        if self._jvm is not None and (not self._jvm.is_alive or POOL.is_retired(self._jvm)):
            self._jvm.forget(self._world, self.call_s)
            self._jvm = None
        if self._jvm is None:
            self._jvm = POOL.lend(self.jvms, self.heap_mib)
            self._world = self._jvm.world(self.call_s)
        self._jvm.loads += 1
        now = self._now
        self._jvm.call(
            self._world, "load", self.call_s, now.task, now.variation, self.simplify, False
        )
        self._jvm.call(self._world, "reset", self.call_s)

    def _again(self) -> None:
        """Do in a fresh world what was done."""
        then = self._now
        self._load()
        for action in then.actions:
            if action and len(action) <= LONGEST:
                self._told("step", action)
        score = float(self._told("getScore") or 0.0)
        if then.actions and abs(score - then.score) > PRECISION:
            raise EnvError(
                f"scienceworld: {len(then.actions)} actions of {then.task} {then.variation} lead "
                f"to a score of {score:g}, and led to {then.score:g}: is it another version of the "
                "package?"
            )

    def _ask(self, method: str, *arguments: Value) -> Value:
        return self._tried(lambda: self._told(method, *arguments))

    def _tried(self, ask: Callable[[], Answer]) -> Answer:
        """Ask the world; a process that went because of others is replaced before."""
        if self._jvm is None or not self._jvm.is_alive:
            self._again()
        try:
            return ask()
        except GoneError:
            self._again()
            return ask()

    def _told(self, method: str, *arguments: Value) -> Value:
        assert self._jvm is not None
        return self._jvm.call(self._world, method, self.call_s, *arguments)
