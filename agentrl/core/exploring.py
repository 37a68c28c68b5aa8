"""The seams of exploration: what finds out, remembers, pays for what is new, chooses starts, and
whom to ask.

`core/protocols.py` names them beside all others.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Protocol, runtime_checkable

from agentrl.core.graph import Cell, StateGraph
from agentrl.core.types import Action, Group, Message, Start, Sum, Task

if TYPE_CHECKING:
    from pathlib import Path

    from agentrl.core.protocols import Env, Runner

Namer = Callable[[str, str], str]
"""A state's own key and what is shown in it -> the key of its cell."""


class StartSampler(Protocol):
    """Where episodes begin: at a reset, or in an archived cell."""

    def sample(self, task: Task, rng: Random) -> Start:
        """Where all siblings of this task begin."""
        ...


class Starts(StartSampler, Protocol):
    """A start sampler that a run trains with; it may be `Stateful`."""

    @property
    def archive(self) -> Path | None:
        """The file that it takes cells from; None for the run's own."""
        ...

    def open(self, folder: Path) -> None:
        """Make ready, in the run's folder. Raises `ConfigError` where there is no archive."""

    def observe(self, groups: Sequence[Group], done: float) -> None:
        """The groups of a step, of all ranks, when `done` of training is behind (0..1)."""

    def metrics(self) -> dict[str, Sum]:
        """Where it stands."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What exploring a task came to: the ways to a success that are worth playing again, the best
    first, and what that cost. `first` is the number of env steps after which the first success
    came."""

    task: Task
    ways: tuple[tuple[Action, ...], ...] = ()
    steps: int = 0
    first: int | None = None
    cells: int = 0
    replayed: int = 0
    diverged: int = 0
    failure: str | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Counts of the explorer's own: what its proposer was asked, say."""
    plan: Mapping[str, Action] = field(default_factory=dict)
    """What is best in each cell, as far as it is known."""
    lessons: tuple[Start, ...] = ()
    """Where demonstrations by the plan are to begin; the first at the task's own start."""
    name: Namer | None = field(default=None, compare=False)
    """A state's own key and what is shown -> the key of its cell."""


class CellKeys(Protocol):
    """Which states are one cell."""

    needs_state_key: ClassVar[bool]
    """It looks at the env's own keys; else at what is shown alone."""

    def namer(self) -> Namer:
        """For one task: it may remember what it named before."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """What a selector chooses from."""

    task: Task
    cells: Sequence[Cell]
    """Those that may be returned to, in the order in which they were found."""
    graph: StateGraph
    here: str
    """The cell in which the last visit ended."""
    rng: Random


class CellSelector(Protocol):
    """Which cell of an archive is returned to. `choose` may be `async def`."""

    def choose(self, among: Choices) -> Cell | Awaitable[Cell | None] | None:
        """One of the cells; None if nothing can follow any of them."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What a proposer is asked: `text` in words, or what `kind` and `key` name for a table."""

    kind: str
    """`cell`, `action`, `keep`, `subgoals`: what the answer is for."""
    task: Task
    key: str
    """Where it is asked: the key of a cell."""
    text: str
    system: str = ""
    options: tuple[str, ...] = ()
    """What is to be chosen from; empty where the answer is free."""
    history: tuple[Message, ...] = ()
    """Questions that were asked before, and their answers."""
    shown: str = ""
    """What the env shows at `key`."""


Voice = Callable[[Sequence[Message], int, int], Awaitable[str]]
"""Messages, most tokens and a seed -> what a model answers."""


class Proposer(Protocol):
    """Somebody who is asked for choices, goals or judgements: a table, a model, a server."""

    async def start(self, folder: Path, voice: Voice | None) -> None:
        """Make ready; `folder` is the run's, `voice` its own policy. Raises `ConfigError`."""
        ...

    async def answer(self, question: Question, seed: int) -> str:
        """In words. Raises `ProposerError` where there is no answer."""
        ...

    async def close(self) -> None:
        """Give back whatever is open; may be called twice."""


@runtime_checkable
class Asks(Protocol):
    """A selector that asks somebody."""

    @property
    def proposer(self) -> Proposer:
        """Whom it asks; whoever uses the selector starts and closes it."""
        ...


class Explorer(Protocol):
    """Finds out, before training, what can be reached on tasks of the train split."""

    @property
    def tasks(self) -> int:
        """How many tasks it explores."""
        ...

    def check(self, env: Env) -> None:
        """Refuse an env that cannot be explored. Raises `ConfigError`."""

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
        """What was found on each task. An archive is kept in `folder`.

        Args:
            voice: the run's own policy, for proposers that ask it.
        """
        ...


class Watched(NamedTuple):
    """A goal in a bonus' own words, and what the env is asked for it (`Env.check`), if anything."""

    goal: str
    condition: str | None


@runtime_checkable
class Watches(Protocol):
    """A bonus for goals (`needs` "goals"): while an episode of training is played, the env is asked
    before the first turn and after each one whether their conditions hold (`Trajectory.goals` and
    `held`)."""

    async def watch(self, task: Task) -> Sequence[Watched]:
        """The goals of a task; the same for all its episodes."""
        ...


@runtime_checkable
class Opens(Protocol):
    """A part that has to be made ready before the run, and closed behind it."""

    async def start(self, folder: Path, voice: Voice | None) -> None:
        """Make ready; `folder` is this process', `voice` the run's policy. Raises `ConfigError`."""
        ...

    async def close(self) -> None:
        """Give back whatever is open; may be called twice."""


@runtime_checkable
class Tells(Protocol):
    """A bonus that has metrics of its own."""

    def metrics(self) -> Mapping[str, Sum]:
        """Of the groups that were observed last, of all ranks."""
        ...


class Bonus(Protocol):
    """What the turns of a step's episodes are worth for the sake of exploring: the second channel,
    which never enters a score. One that remembers is `Stateful` as well.

    A turn is paid for where it led: `Turn.led_to` (with `needs` "state_keys"), `Turn.heard` and
    `Trajectory.opening` (with "texts"). All ranks see the groups of all of them in one order, those
    of others without prompts, and so remember the same.
    """

    @property
    def needs(self) -> frozenset[str]:
        """What episodes have to record: "state_keys", "texts"."""
        ...

    def rate(self, groups: Sequence[Group]) -> list[list[list[float]]]:
        """`[group][trajectory][turn]`, each 0 or more and about 1 at most, also of episodes that
        failed. What is remembered is as it was before these groups, so that siblings compare."""
        ...

    def observe(self, groups: Sequence[Group]) -> None:
        """Remember the groups, after they were rated."""
