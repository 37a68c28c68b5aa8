"""What flows through a run, as plain data: tasks, turns, trajectories, groups, rows and scores.

Nothing here knows torch or a tokenizer. Every class is frozen; lengths that must agree are checked
on construction. Axis letters, used in names everywhere: `B` rows, `T` tokens, `G` siblings in a
group, `P` tasks in a step, `K` turns, `A` sampled tokens of a turn, `L` prompt tokens.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property
from typing import Literal, NamedTuple

from agentrl.core.errors import DataError

Action = str | list[str]
"""What `Env.step` gets: one canonical string, or a list for several calls in one message."""
Split = Literal["train", "dev", "test"]
Role = Literal["system", "user", "assistant", "tool"]
Json = str | int | float | bool | None | Sequence["Json"] | Mapping[str, "Json"]


class Stop(StrEnum):
    """Why an episode ended; rewards, statistics and bootstraps look at it (never at a bool)."""

    DONE = "done"
    MAX_TURNS = "max_turns"
    MAX_TOKENS = "max_tokens"
    BAD_ACTION = "bad_action"
    TIMEOUT = "timeout"
    ERROR = "error"

    @property
    def is_failure(self) -> bool:
        """The machinery broke (not the policy): counted, never scored, never trained."""
        return self in (Stop.TIMEOUT, Stop.ERROR)

    @property
    def is_truncation(self) -> bool:
        """A limit cut the episode off; the value beyond the end is bootstrapped."""
        return self in (Stop.MAX_TURNS, Stop.MAX_TOKENS)


class Finish(StrEnum):
    """Why the sampling of one turn ended."""

    EOS = "eos"
    STOP = "stop"
    LENGTH = "length"


@dataclass(frozen=True, slots=True)
class Image:
    """A picture as PNG bytes, known by its content hash."""

    png: bytes

    @property
    def hash(self) -> str:
        """The first 16 hex digits of the SHA-256 of the bytes."""
        return hashlib.sha256(self.png).hexdigest()[:16]


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One chat message. `ids` holds a sampled reply's own tokens, so it is never re-encoded; an env
    names a reply of this episode by its turn (`reply`), and its tokens are looked up."""

    role: Role
    text: str
    images: tuple[Image, ...] = ()
    ids: tuple[int, ...] | None = None
    reply: int | None = None


@dataclass(frozen=True, slots=True)
class Observation:
    """What the agent is shown. `messages` replaces `text` where an env speaks in several roles;
    with `is_whole` they are the conversation from its beginning, in place of all that was heard."""

    text: str
    images: tuple[Image, ...] = ()
    messages: tuple[Message, ...] | None = None
    is_whole: bool = False

    @property
    def words(self) -> str:
        """All that is said, as one text."""
        said = [message.text for message in self.messages or ()]
        return self.text if self.messages is None else "\n".join(said)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """The answer of `Env.step`.

    `info` reserves `success: bool` (the latest counts; a terminal step must set it),
    `metrics: dict[str, float]`, `invalid_action: bool` and `spots`, a list of `Spot`.
    """

    observation: Observation | str
    reward: float = 0.0
    terminated: bool = False
    truncated: bool = False
    info: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One problem. `data` is JSON-safe and carries whatever `reset` needs beyond the seed."""

    id: str
    seed: int
    instruction: str = ""
    answer: str | None = None
    data: Mapping[str, Json] = field(default_factory=dict)
    hindsight_of: str | None = None
    """The task on whose way this one was solved: it is shown, and never trained on policy."""

    def in_hindsight(self, name: str, instruction: str, data: Mapping[str, Json]) -> Task:
        """The task with another goal from the same start, told apart by `name`."""
        return replace(
            self,
            id=f"{self.id}~{name}",
            instruction=instruction,
            data={**self.data, **data},
            hindsight_of=self.id,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Where an episode begins: a reset, or an archived cell and the actions that lead there."""

    cell: str | None = None
    actions: tuple[Action, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """The boundary that broke (`env`, `engine` or `reward`) and its error as text."""

    where: Literal["env", "engine", "reward"]
    error: str


class Forced(NamedTuple):
    """Tokens that were put into a reply without being sampled: `ids` before its action token `at`
    (behind the last one if `at` is their number)."""

    at: int
    ids: tuple[int, ...]


class Opening(NamedTuple):
    """How the first reply that an episode samples is made to begin: `ids` that nobody sampled, and
    the `budget` that they state. With `is_aside` they are no part of what the action is read from
    (where replies reason, all of it is)."""

    ids: tuple[int, ...]
    budget: int | None = None
    is_aside: bool = False


class Spot(NamedTuple):
    """Where an action pointed in the picture that it answered, in thousandths (0 to 1000) of its
    width and height; `is_end` where a drag let go."""

    x: int
    y: int
    is_end: bool = False


class Fork(NamedTuple):
    """Where a branch leaves its parent: it inherits the first `turn` turns of `trajectory`."""

    trajectory: int
    turn: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """How one turn is sampled. Temperature only: logprobs are of the tempered distribution.

    `seed` and the position of a token decide its random number, whatever else is in the batch.
    """

    temperature: float = 1.0
    max_tokens: int = 32
    stop_ids: frozenset[int] = frozenset()
    seed: int = 0
    greedy: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """What an engine sampled: `ids[A]`, their tempered `logprobs[A]`, runs of (version, count).

    `forced` are tokens that an agent put between two calls of its engine."""

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish: Finish
    versions: tuple[tuple[int, int], ...] = ()
    forced: Forced | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One call of the engine and what the env answered.

    `prompt_ids[L]`, `action_ids[A]` and `sampler_logprobs[A]` are stored as they came;
    `versions` are runs of (weight version, count) that sum to A; `row` counts the trajectory's
    rows; `reward` is the env's, `score` a reward's own for this turn; `images` are content hashes.
    `state_key` names the state that was acted in, `led_to` the one that came of it and `heard` what
    the env then said (both kept where a bonus asks for them), `held` which of the trajectory's
    `goals` were then true (None: nobody can tell).
    `forced` are tokens inside the reply that the model saw but did not sample (the end of its
    thinking, when that was cut short): they are no action ids, and are masked. `spots` are where
    the action pointed in the last picture, where the env says so.
    """

    prompt_ids: tuple[int, ...]
    action_ids: tuple[int, ...]
    sampler_logprobs: tuple[float, ...]
    versions: tuple[tuple[int, int], ...] = ()
    row: int = 0
    reward: float = 0.0
    score: float | None = None
    state_key: str | None = None
    led_to: str | None = None
    heard: str | None = None
    held: tuple[bool | None, ...] = ()
    images: tuple[str, ...] = ()
    spots: tuple[Spot, ...] = ()
    action: Action | None = None
    invalid: bool = False
    finish: Finish = Finish.EOS
    forced: Forced | None = None

    def __post_init__(self) -> None:
        count = len(self.action_ids)
        if len(self.sampler_logprobs) != count:
            raise DataError(
                f"a turn has {count} action ids but {len(self.sampler_logprobs)} logprobs: "
                "the engine must return one logprob for each sampled token"
            )
        if self.versions and sum(n for _, n in self.versions) != count:
            raise DataError(
                f"a turn's versions {self.versions} must sum to its {count} sampled tokens"
            )
        if self.forced is not None and not 0 <= self.forced.at <= count:
            raise DataError(
                f"a turn forces tokens before its action token {self.forced.at}, but has {count}"
            )

    @property
    def reply_ids(self) -> tuple[int, ...]:
        """The whole reply: the action ids, with forced tokens in their place."""
        return with_forced(self.action_ids, self.forced)

    @property
    def places(self) -> tuple[int, ...]:
        """Where in `reply_ids` each action id stands."""
        at, length = (self.forced.at, len(self.forced.ids)) if self.forced else (0, 0)
        return tuple(a + length * (a >= at) for a in range(len(self.action_ids)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """What is learned from: `value`, per-turn values if a reward gives them, and its parts
    (each before its weight)."""

    value: float
    turns: tuple[float, ...] | None = None
    parts: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trajectory:
    """One episode: its turns in order, how it stopped, and what it was worth.

    A branch has a `parent`: its first `parent.turn` turns are the parent's own.
    `pixels` keeps every picture once, by content hash. `seconds` is wall-clock time. `opening` is
    what the env said before the first turn, where a bonus asks for it; so are `goals`, each in the
    bonus' own words, and `held`, which of them were true then.
    """

    task: Task
    turns: tuple[Turn, ...]
    stop: Stop
    start: Start = Start()
    parent: Fork | None = None
    score: Score | None = None
    success: bool | None = None
    failure: Failure | None = None
    seconds: float = 0.0
    env_seconds: float = 0.0
    metrics: Mapping[str, float] = field(default_factory=dict)
    pixels: Mapping[str, Image] = field(default_factory=dict)
    opening: str | None = None
    goals: tuple[str, ...] = ()
    held: tuple[bool | None, ...] = ()
    budget: int | None = None
    """Tokens that it was told to get by with (`Opening`); 0 told it to answer at once."""
    progress: tuple[tuple[int, float], ...] = ()
    """How likely an answer behind so many of its sampled tokens would have been right, in order."""

    def __post_init__(self) -> None:
        if self.parent is not None and self.parent.turn > len(self.turns):
            raise DataError(
                f"a branch inherits {self.parent.turn} turns but has only {len(self.turns)}"
            )

    @property
    def env_return(self) -> float:
        """Sum of the env's rewards over the turns."""
        return math.fsum(turn.reward for turn in self.turns)

    @property
    def n_tokens(self) -> int:
        """Sampled tokens in the trajectory."""
        return sum(len(turn.action_ids) for turn in self.turns)

    @property
    def is_scored(self) -> bool:
        """Whether it enters group statistics and training."""
        return (
            not self.stop.is_failure and self.score is not None and math.isfinite(self.score.value)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Siblings: same task, same start. Ragged; failed ones are kept, but not in statistics."""

    task: Task
    trajectories: tuple[Trajectory, ...]
    start: Start = Start()
    is_remote: bool = False
    """It was sampled by another process, where its prompts and pictures stayed."""
    bonus: tuple[tuple[float, ...], ...] | None = None
    """Advantages of the second channel, `[trajectory][turn]`, before their coefficient; None where
    it is off."""
    greedy: Trajectory | None = None
    """The greedy episode of the same task and start, where an estimator needs one; it is scored,
    but no sibling: it is in no statistics and is not trained on."""

    @property
    def scored(self) -> tuple[int, ...]:
        """Indices of the trajectories that enter statistics and training."""
        return tuple(i for i, t in enumerate(self.trajectories) if t.is_scored)

    @property
    def values(self) -> tuple[float, ...]:
        """The scores of those trajectories."""
        return tuple(t.score.value for t in self.trajectories if t.is_scored and t.score)

    @property
    def is_dead(self) -> bool:
        """It teaches nothing: its scores are equal, and the second channel is off or silent."""
        return len(set(self.values)) <= 1 and not any(any(turns) for turns in self.bonus or ())

    def owner(self, trajectory: int, turn: int) -> tuple[int, int]:
        """The (trajectory, turn) that sampled this turn: itself, or the ancestor it came from."""
        parent = self.trajectories[trajectory].parent
        while parent is not None and turn < parent.turn:
            trajectory = parent.trajectory
            parent = self.trajectories[trajectory].parent
        return trajectory, turn


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One token sequence to train on. `mask` is True on exactly the sampled tokens.

    All lists have length T; `turn_of` is the turn that sampled the token, or -1; `inherited` marks
    sampled tokens that a branch shares with its parent; `versions` is the weight version per token
    (-1 off the mask). `trajectory` and `group` are indices into the step's groups.
    """

    ids: tuple[int, ...]
    mask: tuple[bool, ...]
    inherited: tuple[bool, ...]
    sampler_logprobs: tuple[float, ...]
    turn_of: tuple[int, ...]
    versions: tuple[int, ...]
    trajectory: int
    group: int
    temperature: float = 1.0
    images: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        lengths = {
            name: len(getattr(self, name))
            for name in ("ids", "mask", "inherited", "sampler_logprobs", "turn_of", "versions")
        }
        if len(set(lengths.values())) != 1:
            raise DataError(f"a row's lists must have one length, got {lengths}")


class Level(StrEnum):
    """How fine an estimator's values are; `algo/spread.py` carries them to tokens."""

    TRAJECTORY = "trajectory"
    TURN = "turn"
    TOKEN = "token"


@dataclass(frozen=True, kw_only=True)
class Scored:
    """All groups of one step, plus whatever the estimator's `needs` asked for.

    The optional fields are ragged, `[group][trajectory][token]` over sampled tokens in turn order.
    `values` are the critic's, of the state in which the token was sampled; `end_values`,
    `[group][trajectory]`, are of the state behind the last one.
    """

    groups: tuple[Group, ...]
    values: Sequence[Sequence[Sequence[float]]] | None = None
    end_values: Sequence[Sequence[float]] | None = None
    entropies: Sequence[Sequence[Sequence[float]]] | None = None
    ref_logprobs: Sequence[Sequence[Sequence[float]]] | None = None

    @cached_property
    def rewards_PG(self) -> tuple[tuple[float | None, ...], ...]:
        """`Score.value` of each trajectory, None where it is left out of statistics."""
        return tuple(
            tuple(t.score.value if t.is_scored and t.score else None for t in group.trajectories)
            for group in self.groups
        )

    def by_group(self, estimate: Callable[[list[float]], Sequence[float]]) -> AdvantageOut:
        """Apply `estimate` to the scored rewards of each group; others get None."""
        values = []
        for rewards_G in self.rewards_PG:
            found = iter(estimate([r for r in rewards_G if r is not None]))
            values.append(tuple(None if r is None else next(found) for r in rewards_G))
        return AdvantageOut(values=tuple(values), level=Level.TRAJECTORY)


@dataclass(frozen=True, kw_only=True)
class AdvantageOut:
    """Advantages `[group][trajectory]`: a float, or a list per turn or per sampled token (`level`).

    None marks a trajectory that is left out. `returns` are the critic's targets and `keep` is a
    loss mask, both `[group][trajectory][token]` over sampled tokens in turn order, whatever the
    level; a target of NaN is none.
    """

    values: tuple[tuple[float | Sequence[float] | None, ...], ...]
    level: Level
    returns: tuple[tuple[Sequence[float] | None, ...], ...] | None = None
    keep: tuple[tuple[Sequence[bool] | None, ...], ...] | None = None
    metrics: Mapping[str, Sum] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Sum:
    """A metric as numerator and weight, so that means survive accumulation and all-reduce."""

    total: float
    weight: float = 1.0

    def __add__(self, other: Sum) -> Sum:
        return Sum(self.total + other.total, self.weight + other.weight)

    @property
    def mean(self) -> float:
        """`total / weight`, NaN where nothing was counted."""
        return self.total / self.weight if self.weight else math.nan


def with_forced(ids: tuple[int, ...], forced: Forced | None) -> tuple[int, ...]:
    """The sampled ids with forced tokens in their place."""
    return ids if forced is None else (*ids[: forced.at], *forced.ids, *ids[forced.at :])


Metrics = Mapping[str, Sum]


def merge_metrics(parts: Sequence[Metrics]) -> dict[str, Sum]:
    """Add the parts key by key."""
    merged: dict[str, Sum] = {}
    for part in parts:
        for key, value in part.items():
            merged[key] = merged[key] + value if key in merged else value
    return merged
