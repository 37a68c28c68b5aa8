"""Several environments as one: each task belongs to one of them, in shares by weight.

env:
  - {name: babyai, level: GoToObj, weight: 3}
  - {name: babyai, level: GoToLocal, weight: 1}
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, cast, overload

from annotated_types import Gt

from agentrl.core import protocols
from agentrl.core.errors import ConfigError
from agentrl.core.protocols import ABILITIES, Env, RunsIn, abilities
from agentrl.core.registry import register, slot_of
from agentrl.core.shapes import DefaultPart, Slot
from agentrl.core.types import Action, Observation, Split, Step, Task

PLACES: tuple[RunsIn, ...] = ("inline", "thread", "process")
"""Where envs run, the more separate the later."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """One environment of a mixture."""

    env: Annotated[protocols.Env, Slot("env")]
    """The environment and its settings."""
    weight: Annotated[float, Gt(0)] = 1.0
    """Its share of the tasks, relative to the others' (above 0)."""


def _levels() -> tuple[Part, ...]:
    babyai = DefaultPart("env", "babyai")
    return Part(env=replace(babyai(), level="GoToObj")), Part(env=babyai())


@register("env", "mixture")
@dataclass(kw_only=True)
class Mixture(Env):
    """Several environments by weight; `env:` as a list makes one.

    The metric `env/success_NAME` tells of each alone. An ability is there if all of them have it.
    """

    parts: tuple[Part, ...] = field(default_factory=_levels)
    """The environments, each with its `weight`."""

    def __post_init__(self) -> None:
        if not self.parts:
            raise ConfigError("parts: expected at least one environment")
        formats = {part.env.actions for part in self.parts}
        if len(formats) > 1:
            raise ConfigError(
                f"parts: they ask for several action formats ({', '.join(sorted(formats))}); an "
                "episode has one: mix environments that share one"
            )
        envs = [part.env for part in self.parts]
        self.runs_in = max((env.runs_in for env in envs), key=PLACES.index)  # type: ignore[misc]
        self.timeout_s = max(env.timeout_s for env in envs)  # type: ignore[misc]
        self.actions = formats.pop()  # type: ignore[misc]
        self.takes_text = any(env.takes_text for env in envs)  # type: ignore[misc]
        self._able = frozenset.intersection(*(abilities(env) for env in envs))
        self._names = _names(envs)
        self._own = [replace(env) for env in envs]  # type: ignore[type-var]
        self._playing = 0
        self._success = False

    def tasks(self, split: Split) -> Sequence[Task]:
        """Tasks of all parts, evenly mixed by weight. In `train` the tasks of a small part come
        again; in the others none does, and the part that ends first ends the split."""
        return Mixed(
            names=self._names,
            tasks=[part.env.tasks(split) for part in self.parts],
            weights=[part.weight for part in self.parts],
            is_repeating=split == "train",
        )

    async def reset(self, task: Task) -> Observation | str:
        """The task's own environment begins."""
        name, _, rest = task.id.partition(":")
        self._playing, self._success = self._names.index(name), False
        own = replace(task, id=rest.partition("#")[0])
        return cast("Observation | str", await _awaited(self._env.reset(own)))

    async def step(self, action: Action) -> Step:
        """As it answers, with its success as a metric of its name."""
        step = cast("Step", await _awaited(self._env.step(action)))
        success = step.info.get("success")
        self._success = self._success if success is None else bool(success)
        told = dict(cast("dict[str, float]", step.info.get("metrics", {})))
        told[f"success_{self._names[self._playing]}"] = float(self._success)
        return replace(step, info={**step.info, "metrics": told})

    async def close(self) -> None:
        """Close all of them."""
        for env in self._own:
            await _awaited(env.close())

    @property
    def _env(self) -> Env:
        return self._own[self._playing]

    def __getattr__(self, name: str) -> Callable[..., object]:
        """An ability, which is that of the environment that is being played."""
        if name not in ABILITIES or name not in self.__dict__.get("_able", ()):
            raise AttributeError(name)
        if name == "tools":
            return lambda task: self._env.tools(task)  # type: ignore[attr-defined]
        return cast("Callable[..., object]", getattr(self._env, name))


@dataclass(frozen=True, kw_only=True)
class Mixed(Sequence[Task]):
    """The n-th task is of the part that is furthest behind its share of the first n."""

    names: Sequence[str]
    tasks: Sequence[Sequence[Task]]
    weights: Sequence[float]
    is_repeating: bool
    _order: list[tuple[int, int]] = field(default_factory=list)
    """(part, its task) of each task so far."""

    def __len__(self) -> int:
        total = math.fsum(self.weights)
        shares = [
            len(tasks) * total / weight
            for tasks, weight in zip(self.tasks, self.weights, strict=True)
        ]
        return int((max if self.is_repeating else min)(shares) + 1e-9)

    @overload
    def __getitem__(self, at: int) -> Task: ...
    @overload
    def __getitem__(self, at: slice) -> list[Task]: ...
    def __getitem__(self, at: int | slice) -> Task | list[Task]:
        if isinstance(at, slice):
            return [self[i] for i in range(*at.indices(len(self)))]
        place = at + len(self) if at < 0 else at
        if not 0 <= place < len(self):
            raise IndexError(f"task {at} of {len(self)}")
        self._extend(place)
        part, number = self._order[place]
        own = self.tasks[part]
        again = f"#{number // len(own) + 1}" if number >= len(own) else ""
        task = own[number % len(own)]
        return replace(task, id=f"{self.names[part]}:{task.id}{again}")

    def _extend(self, place: int) -> None:
        counts = [0] * len(self.tasks)
        for part, _ in self._order:
            counts[part] += 1
        total = math.fsum(self.weights)
        while len(self._order) <= place:
            n = len(self._order) + 1
            behind = [n * w / total - c for w, c in zip(self.weights, counts, strict=True)]
            part = max(range(len(counts)), key=behind.__getitem__)
            self._order.append((part, counts[part]))
            counts[part] += 1


def _names(envs: Sequence[Env]) -> list[str]:
    """The registered names; those that occur twice are numbered."""
    plain = [(slot_of(type(env)) or ("env", type(env).__name__))[1] for env in envs]
    return [
        name if plain.count(name) == 1 else f"{name}_{plain[: i + 1].count(name)}"
        for i, name in enumerate(plain)
    ]


async def _awaited(value: object) -> object:
    return await value if inspect.isawaitable(value) else value
