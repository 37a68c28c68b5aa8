"""Workflow-guided exploration: a few demonstrations become programs, and trying them out on other
tasks shows which of the programs say what was meant."""

from __future__ import annotations

import json
import logging
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Annotated, NamedTuple

from annotated_types import Ge, Gt, Le

from agentrl.core.errors import ConfigError, DeadlineError, EnvError
from agentrl.core.exploring import Found, Voice
from agentrl.core.protocols import Env, Runner, abilities
from agentrl.core.registry import register
from agentrl.core.seeds import derive_seed
from agentrl.core.types import Action, Task
from agentrl.explore.ground import Ground
from agentrl.explore.programs import (
    QUOTED,
    Program,
    Screen,
    goal_of,
    programs_for,
    read_screen,
    target_of,
)

logger = logging.getLogger(__name__)
MOST = 50
"""Programs of a step, those with the fewest elements."""


@register("explore", "workflows")
@dataclass(frozen=True, kw_only=True)
class Workflows:
    """A few episodes of the expert are read as programs (click what the goal quotes, type its
    second text into what follows a label); on the other tasks they are tried, and those that lead
    to success are tried more often (workflow-guided exploration, Liu et al. 2018, arXiv
    1802.08802). For screens that are shown as lines `[5] button Login`.
    """

    tasks: Annotated[int, Ge(2)] = 100
    """Train tasks that are explored, those of the demonstrations among them (2 or more)."""
    demos: Annotated[int, Ge(1)] = 5
    """Tasks of which the expert shows the solution (1 or more)."""
    tries: Annotated[int, Ge(1)] = 3
    """Episodes on each of the other tasks, until one succeeds (1 or more)."""
    steps: Annotated[int, Ge(1)] = 10
    """Actions of an episode at most (1 or more)."""
    rate: Annotated[float, Gt(0)] = 0.8
    """How fast programs gain and lose weight (above 0)."""
    slow: Annotated[float, Ge(0), Le(1)] = 0.9
    """How much a step's expected success keeps of itself after an episode (0..1)."""

    def check(self, env: Env) -> None:
        """Refuse an env without an expert. Raises `ConfigError`."""
        if "expert_action" not in abilities(env):
            raise ConfigError(
                f"explore: workflows learns from a few demonstrations, and env "
                f"{type(env).__name__} has no expert_action(); use explore=go_explore"
            )

    async def find(
        self,
        tasks: Sequence[Task],
        env: Env,
        runner: Runner,
        folder: Path,
        *,
        seed: int,
        say: Callable[[str], None],
        voice: Voice | None = None,
    ) -> list[Found]:
        """Demonstrations of the first tasks, then episodes on the others. What the programs came to
        is written to `workflows.json`."""
        rng = Random(derive_seed(seed, "workflows"))
        found: list[Found] = []
        book = Book(rate=self.rate, slow=self.slow)
        handle = await runner.open(env)
        try:
            for n, task in enumerate(tasks):
                ground = Ground(task=task, env=handle, runner=runner, restore="replay")
                try:
                    if n < self.demos:
                        found.append(await self._demonstrated(ground, book))
                    else:
                        found.append(await self._tried(ground, book, rng))
                except (EnvError, DeadlineError) as error:
                    logger.warning("explore: task %s failed: %s", task.id, error)
                    found.append(Found(task=task, steps=ground.steps, failure=str(error)))
                    await runner.close(handle, is_broken=True)
                    handle = await runner.open(env)
                if len(found) % max(len(tasks) // 5, 1) == 0 or len(found) == len(tasks):
                    say(book.progress(len(found), len(tasks)))
        finally:
            await runner.close(handle)
        folder.mkdir(parents=True, exist_ok=True)
        told = {"episodes": book.outcomes, "workflows": [one.told() for one in book.lattices]}
        (folder / "workflows.json").write_text(json.dumps(told, indent=1) + "\n")
        return found

    async def _demonstrated(self, ground: Ground, book: Book) -> Found:
        """The expert's episode, of which a workflow is made if it succeeds."""
        await ground.begin()
        goal, last = goal_of(ground.text), ""
        steps: list[tuple[Screen, Action]] = []
        is_success = False
        for _ in range(self.steps):
            screen = read_screen(ground.text, goal, last)
            action = await ground.expert_action()
            steps.append((screen, action))
            last = target_of(action) or last
            landed = await ground.take(action)
            is_success = landed.is_success
            if landed.is_terminal:
                break
        if is_success:
            book.lattices.append(Lattice.of(goal, steps))
        actions = tuple(action for _, action in steps)
        return Found(
            task=ground.task,
            ways=(actions,) if is_success else (),
            steps=ground.steps,
            first=ground.steps if is_success else None,
        )

    async def _tried(self, ground: Ground, book: Book, rng: Random) -> Found:
        """Episodes until one succeeds."""
        for _ in range(self.tries if book.lattices else 0):
            await ground.begin()
            goal, last = goal_of(ground.text), ""
            lattice = book.choose(goal, rng)
            at, taken, is_success = 0, list[Choice](), False
            while at < len(lattice.steps) and len(taken) < self.steps:
                screen = read_screen(ground.text, goal, last)
                choice = lattice.sample(at, screen, rng)
                taken.append(choice)
                if choice.action is None:
                    break
                last = target_of(choice.action) or last
                landed = await ground.take(choice.action)
                is_success, at = landed.is_success, choice.edge.to
                if landed.is_terminal:
                    break
            book.learn(lattice, taken, is_success)
            if is_success:
                way = tuple(one.action for one in taken if one.action is not None)
                return Found(task=ground.task, ways=(way,), steps=ground.steps, first=ground.steps)
        return Found(task=ground.task, steps=ground.steps)


@dataclass(slots=True, eq=False)
class Edge:
    """A program that leads from a step of a demonstration to a later one."""

    program: Program
    to: int
    weight: float = 0.0


class Choice(NamedTuple):
    """An edge that was sampled at a step, and the action; None where nothing satisfies it."""

    at: int
    edge: Edge
    action: Action | None
    screen: Screen


@dataclass
class Lattice:
    """What one demonstration may have meant: programs for each step, and ways past a step."""

    goal: str
    steps: list[list[Edge]]
    worth: list[float]
    """Success that is expected at each step."""

    @classmethod
    def of(cls, goal: str, demo: Sequence[tuple[Screen, Action]]) -> Lattice:
        """All programs that its actions satisfy; those with the fewest elements begin with weight
        1, the others, and those that leave out a step, with 0."""
        own: list[list[Edge]] = []
        for at, (screen, action) in enumerate(demo):
            counted = [(len(p.actions(screen)), p) for p in programs_for(action, screen)]
            ranked = sorted(counted, key=lambda pair: pair[0])[:MOST]
            least = ranked[0][0]
            own.append([Edge(p, at + 1, float(count == least)) for count, p in ranked])
        steps = [
            [*edges, *(Edge(e.program, e.to) for e in (own[at + 1] if at + 1 < len(own) else ()))]
            for at, edges in enumerate(own)
        ]
        return cls(goal, steps, [0.0] * len(steps))

    def chances(self, at: int) -> list[float]:
        """Softmax of the weights at a step."""
        most = max(edge.weight for edge in self.steps[at])
        scores = [math.exp(edge.weight - most) for edge in self.steps[at]]
        return [score / sum(scores) for score in scores]

    def sample(self, at: int, screen: Screen, rng: Random) -> Choice:
        """A program by its weight, and any of its actions."""
        [edge] = rng.choices(self.steps[at], self.chances(at))
        actions = edge.program.actions(screen)
        return Choice(at, edge, rng.choice(actions) if actions else None, screen)

    def learn(self, choice: Choice, worth: float, *, rate: float, slow: float) -> None:
        """`w_z += rate (p(z|a) - pi(z)) (G - v)`, with `p(z|a)` in proportion to `p(a|z) pi(z)`."""
        chances, edges = self.chances(choice.at), self.steps[choice.at]
        likely = [
            p * _chance_of(choice.action, edge.program, choice.screen)
            if choice.action is not None
            else p * (edge is choice.edge)
            for p, edge in zip(chances, edges, strict=True)
        ]
        surprise, total = worth - self.worth[choice.at], sum(likely)
        for edge, p, joint in zip(edges, chances, likely, strict=True):
            edge.weight += rate * (joint / total - p) * surprise
        self.worth[choice.at] = slow * self.worth[choice.at] + (1 - slow) * worth

    def told(self) -> dict[str, object]:
        """Its goal, and for each step the programs that are most likely now."""
        steps = []
        for at, edges in enumerate(self.steps):
            ranked = sorted(zip(self.chances(at), edges, strict=True), key=lambda pair: -pair[0])
            steps.append({f"{edge.program} -> {edge.to}": round(p, 4) for p, edge in ranked[:5]})
        return {"goal": self.goal, "steps": steps}


def _chance_of(action: Action, program: Program, screen: Screen) -> float:
    """`p(a|z)`: a program takes any of its actions alike."""
    actions = program.actions(screen)
    return actions.count(action) / len(actions) if actions else 0.0


@dataclass
class Book:
    """The workflows of all demonstrations, and how their episodes ended."""

    rate: float
    slow: float
    lattices: list[Lattice] = field(default_factory=list)
    outcomes: list[bool] = field(default_factory=list)

    def choose(self, goal: str, rng: Random) -> Lattice:
        """A demonstration whose goal reads alike but for what it quotes, if there is one; else any,
        in proportion to `1 / (words that differ + 1)^2`."""
        weights = [1 / (_differing(goal, lattice.goal) + 1) ** 2 for lattice in self.lattices]
        if 1.0 in weights:
            weights = [float(weight == 1.0) for weight in weights]
        [lattice] = rng.choices(self.lattices, weights)
        return lattice

    def learn(self, lattice: Lattice, taken: Sequence[Choice], is_success: bool) -> None:
        """What an episode's end says of each program that was sampled in it."""
        self.outcomes.append(is_success)
        for choice in taken:
            lattice.learn(choice, float(is_success), rate=self.rate, slow=self.slow)

    def progress(self, done: int, count: int) -> str:
        """One line for people."""
        recent = self.outcomes[-20:]
        share = f"{sum(recent)} of the last {len(recent)} episodes succeeded" if recent else "shown"
        return (
            f"explore: {done} of {count} tasks, {len(self.lattices)} workflows, "
            f"{len(self.outcomes)} episodes, {share}"
        )


def _differing(goal: str, other: str) -> int:
    """Words of which one goal has more than the other, quoted texts left out."""
    a, b = (Counter(QUOTED.sub('""', text).split()) for text in (goal, other))
    return max((a - b).total(), (b - a).total())
