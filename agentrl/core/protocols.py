"""The seams: what an environment, an engine, a reward, an estimator or a backend must offer.

A part implements one of these protocols, is a dataclass whose fields are its settings, and is
registered by name (`core/registry.py`). `Env` alone is a base class, because it is what users
write.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol, TypeVar, runtime_checkable

from agentrl.core.backends import Parallel as Parallel
from agentrl.core.backends import Share as Share
from agentrl.core.exploring import Bonus as Bonus
from agentrl.core.exploring import CellKeys as CellKeys
from agentrl.core.exploring import CellSelector as CellSelector
from agentrl.core.exploring import Choices as Choices
from agentrl.core.exploring import Explorer as Explorer
from agentrl.core.exploring import Proposer as Proposer
from agentrl.core.exploring import Question as Question
from agentrl.core.exploring import Starts as Starts
from agentrl.core.exploring import StartSampler as StartSampler
from agentrl.core.exploring import Voice as Voice
from agentrl.core.saved import Saved
from agentrl.core.sinks import Sink as Sink
from agentrl.core.types import (
    Action,
    AdvantageOut,
    Fork,
    Group,
    Image,
    Json,
    Message,
    Observation,
    Opening,
    Score,
    Scored,
    Split,
    Start,
    Step,
    Sum,
    Task,
    Trajectory,
)
from agentrl.core.types import Completion as Completion
from agentrl.core.types import SamplingParams as SamplingParams
from agentrl.core.wording import ActionFormat as ActionFormat
from agentrl.core.wording import ContextPolicy as ContextPolicy
from agentrl.core.wording import Renderer as Renderer
from agentrl.core.wording import ToolFormat as ToolFormat

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from agentrl.core.tensors import Counts, LossOut, Scores, Siblings
    from agentrl.core.types import Row

T = TypeVar("T")
RunsIn = Literal["inline", "thread", "process"]

ABILITIES = (
    "snapshot",
    "restore",
    "state_key",
    "expert_action",
    "legal_actions",
    "tools",
    "check",
    "hindsight",
)
"""Optional methods of an `Env`; having the method is having the ability."""


class Env(ABC):
    """A multi-turn task, played one episode at a time and many in its life.

    Subclasses are keyword-only dataclasses whose fields are YAML keys. `reset` and `step` may be
    `async def`. A sync env says where it runs: `inline` (cheap and never blocks), `thread`, or
    `process` (spawn-safe, can be killed). Optional abilities are methods that a subclass adds:

    - `snapshot() -> object` and `restore(snapshot)`: in-memory save states;
    - `state_key() -> str`: names the state, stable across processes;
    - `expert_action() -> Action`: what a solver would do now;
    - `legal_actions() -> list[Action]`: what makes sense now;
    - `tools(task) -> list[dict]`: JSON schemas of callable tools;
    - `check(goal: str) -> bool | None`: whether a named condition holds (None: cannot tell);
    - `hindsight(task) -> Task | None`: another task from the same start that has just been solved.
    """

    runs_in: ClassVar[RunsIn] = "thread"
    timeout_s: ClassVar[float] = 30.0
    actions: ClassVar[str] = "plain"
    """The action format that fits this env unless the config names another."""
    splits: ClassVar[tuple[Split, ...]] = ("train", "dev", "test")
    """The splits that there are; a benchmark may have `test` alone."""
    splits_by: ClassVar[Literal["start", "seed"]] = "start"
    """What no two splits share: a start, or only a seed; small tasks then repeat their starts."""
    takes_text: ClassVar[bool] = False
    """Every reply has to reach `step`, as text where no action was read in it."""
    extra: ClassVar[str] = ""
    """The extra of this package that installs what the env stands on, if it stands on any."""
    licence: ClassVar[str] = ""
    """Of the games and data that are not this package's own."""
    cite: ClassVar[str] = ""
    """Whom to cite for the env: authors, year, and where."""

    @abstractmethod
    def tasks(self, split: Split) -> Sequence[Task]:
        """The tasks of a split: lazy, seeded, disjoint between splits by initial state."""

    @abstractmethod
    def reset(self, task: Task) -> Observation | str | Awaitable[Observation | str]:
        """Begin an episode; the same task always begins in the same state."""

    @abstractmethod
    def step(self, action: Action) -> Step | Awaitable[Step]:
        """Act; raises `RuntimeError` after the end of the episode."""

    def close(self) -> Awaitable[None] | None:  # noqa: B027 - most envs hold nothing
        """Give back whatever is open; may be called twice, and a later `reset` opens anew."""


def abilities(env: Env) -> frozenset[str]:
    """The optional methods that this env has."""
    return frozenset(name for name in ABILITIES if callable(getattr(env, name, None)))


class Policy(Protocol):
    """The model that a run trains, as engines and backends see it."""

    module: torch.nn.Module
    folder: Path | None
    """Where the weights came from; None for a model built from a config."""
    context_length: int


@runtime_checkable
class Engine(Protocol):
    """Samples tokens. The whole prompt comes with every call, and any call is valid without
    history; `episode` and `group` are hints, never correctness."""

    shares_module: ClassVar[bool]
    """It samples from `policy.module` itself; else from what `start` and `load_weights` gave it."""

    async def start(self, policy: Policy) -> None:
        """Make ready to sample from `policy`, with the weights that it has now."""

    async def generate(
        self,
        prompt_ids: Sequence[int],
        params: SamplingParams,
        *,
        episode: int,
        group: int,
        images: Sequence[Image] | None = None,
    ) -> Completion:
        """Sample until a stop id or `max_tokens`. Raises `EngineError`."""
        ...

    async def end(self, episode: int) -> None:
        """The episode is over: free what was kept for it."""

    async def load_weights(self, tensors: Mapping[str, torch.Tensor], version: int) -> None:
        """Receive a push (empty tensors: the module is shared); later tokens carry `version`."""

    async def probe(self, ids: Sequence[int]) -> list[float]:
        """Untempered logprobs of `ids[1:]` given what precedes each, for the parity check."""
        ...

    async def close(self) -> None:
        """Release everything; may be called twice."""


class Runner(Protocol):
    """Runs an env's methods somewhere: in the event loop, in a thread, in a process."""

    async def open(self, template: Env) -> EnvHandle:
        """A fresh env with the template's settings."""
        ...

    async def call(
        self, env: EnvHandle, verb: str, *args: object, timeout_s: float | None = None
    ) -> object:
        """Call a method. Raises `EnvError` if it raised or died, `DeadlineError` if it was late."""
        ...

    async def close(self, env: EnvHandle, *, is_broken: bool = False) -> None:
        """Close the env; a broken one is abandoned or killed."""


class EnvHandle(Protocol):
    """An open env, as its runner knows it."""

    template: Env


class Agent(Protocol):
    """Whoever sits in the model's seat: an engine, the expert, a random player, a person."""

    async def act(self, seat: Seat) -> Completion:
        """Answer the prompt of `seat`."""
        ...

    async def end(self, episode: int) -> None:
        """The episode is over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """What an agent may look at when its turn comes."""

    prompt_ids: tuple[int, ...]
    messages: tuple[Message, ...]
    images: tuple[Image, ...]
    runner: Runner
    env: EnvHandle
    episode: int
    group: int
    turn: int
    max_tokens: int
    seed: int
    begun: tuple[int, ...] = ()
    """What the reply begins with, unsampled (`core.types.Opening`)."""


class Play(Protocol):
    """What a strategy is handed: plays one episode, or scores a completed group."""

    group_size: int

    @property
    def renderer(self) -> Renderer:
        """Words to tokens and back."""
        ...

    def more(self, batch: int) -> Sequence[Task]:
        """Further tasks for this step, other ones for each `batch` from 1; empty where there are
        none (evaluations)."""
        ...

    def start(self, task: Task) -> Start:
        """Where the episodes of this task's group begin."""
        ...

    async def __call__(
        self,
        task: Task,
        start: Start,
        *,
        group: int,
        sibling: int,
        fork: tuple[Trajectory, Fork] | None = None,
        opening: Opening | None = None,
        stages: dict[int, Saved] | None = None,
    ) -> Trajectory:
        """One episode; a failed one is returned as data. `opening` begins its first own reply.
        `stages` get the episode as it stands before each turn, which takes snapshots of the env; a
        fork with its parent's begins by restoring one, else by replay."""
        ...

    async def greedy(self, task: Task, start: Start, *, group: int) -> Trajectory | None:
        """The greedy episode of a group (`Group.greedy`); None where no estimator needs one."""
        ...

    async def score(self, group: Group) -> Group:
        """The group with its rewards, given the moment it completes."""
        ...


class Strategy(Protocol):
    """How the episodes of a step are spent."""

    by_group: ClassVar[bool]
    """Each task's group is played for itself, so that groups can be asked for one at a time."""

    async def collect(self, tasks: Sequence[Task], play: Play) -> list[Group]: ...


class Reward(Protocol):
    """Scores a finished trajectory; None means "cannot tell" (masked and counted).

    A judge that compares siblings implements `score_group` as well and is then asked only that.
    """

    async def __call__(self, trajectory: Trajectory) -> Score | float | None: ...


@runtime_checkable
class GroupReward(Protocol):
    """A reward that sees all valid siblings at once."""

    async def score_group(
        self, trajectories: Sequence[Trajectory]
    ) -> Sequence[Score | float | None]: ...


class Advantage(Protocol):
    """Credit. `needs` names what must be there: values, entropies, ref_logprobs, state_keys,
    greedy (`Group.greedy`)."""

    @property
    def needs(self) -> frozenset[str]:
        """Optional fields of `Scored` that it reads."""
        ...

    def __call__(self, scored: Scored) -> AdvantageOut: ...


class Filter(Protocol):
    """Which completed groups are trained on."""

    def __call__(self, groups: Sequence[Group]) -> list[Group]: ...


@runtime_checkable
class Stateful(Protocol):
    """A part that remembers something from step to step. Checkpoints keep its state."""

    def state(self) -> Json:
        """What it remembers, as plain data."""
        ...

    def restore(self, state: Json) -> None:
        """Go on from what `state` returned. Raises `ConfigError` for anything else."""
        ...


class Curriculum(Protocol):
    """Which tasks come next."""

    def next(self, tasks: Sequence[Task], count: int, step: int, seed: int) -> list[Task]:
        """`count` tasks for this step; the same arguments give the same tasks."""
        ...


@runtime_checkable
class Informed(Protocol):
    """A curriculum that learns from what came of its tasks."""

    def observe(self, outcomes: Sequence[tuple[Task, float]]) -> None:
        """Each task of the step that was trained last, of all ranks, with its share of successes
        (0 to 1) among the episodes that did not fail."""


class Loss(Protocol):
    """The surrogate, per token. Aggregation, KL and mismatch are separate parts.

    All tensors are `[B,T]`; `trajectory_B` tells which rows belong to one trajectory.
    """

    def __call__(
        self,
        logp: torch.Tensor,
        old_logp: torch.Tensor,
        advantages: torch.Tensor,
        mask: torch.Tensor,
        *,
        trajectory_B: torch.Tensor,
    ) -> LossOut: ...


@runtime_checkable
class GroupLoss(Protocol):
    """A loss in the slot `loss` that compares whole trajectories of a group.

    The loop keeps groups whole in updates and micro-batches, and computes reference logprobs.
    `[N]` losses come back, one for each trajectory; `aggregate=seq_mean_token_mean` averages them.
    """

    whole_groups: ClassVar[bool]
    """True."""

    def __call__(self, siblings: Siblings) -> tuple[torch.Tensor, Mapping[str, Sum]]: ...


class Aggregate(Protocol):
    """Length normalisation: the weight of each token of a row in the step's loss."""

    def __call__(self, lengths_B: torch.Tensor, counts: Counts) -> torch.Tensor:
        """`[B]` weights; `lengths_B` counts the trained tokens of the row's whole trajectory."""
        ...


class Kl(Protocol):
    """Per-token divergence from the reference, `[B,T]`, times its coefficient."""

    @property
    def beta(self) -> float:
        """The coefficient."""
        ...

    @property
    def placement(self) -> Literal["loss", "reward"]:
        """Whether it is added to the loss, or taken from the reward before credit is given."""
        ...

    def __call__(
        self, logp: torch.Tensor, ref_logp: torch.Tensor, old_logp: torch.Tensor
    ) -> torch.Tensor: ...


class Entropy(Protocol):
    """How the policy is kept from being too sure. One that adapts is `Stateful` as well."""

    @property
    def coef(self) -> float:
        """What this step's mean entropy (nats per token) is multiplied by and taken from the loss
        (0 or more)."""
        ...

    @property
    def top(self) -> float:
        """Share of the step's tokens, those with the highest entropy, that the surrogate trains."""
        ...

    def observe(self, entropy: float) -> None:
        """The mean entropy of the step that was trained last."""


class Mismatch(Protocol):
    """Weights `[B,T]`, detached, for tokens whose sampler was not the policy that is trained.

    1 off the mask, and 0 for what is left out of the loss (it stays in the counts). "Sequence"
    means trajectory: its rows are never parted.
    """

    def __call__(
        self,
        old_logp: torch.Tensor,
        sampler_logp: torch.Tensor,
        mask: torch.Tensor,
        *,
        logp: torch.Tensor,
        advantages: torch.Tensor,
        trajectory_B: torch.Tensor,
    ) -> tuple[torch.Tensor, Mapping[str, Sum]]: ...


class Scorer(Protocol):
    """Logprobs of rows under a module: ragged rows in, `Scores` in row order out, with gradient."""

    def check(self, module: torch.nn.Module) -> list[str]:
        """Make sure, before training, that this module is scored exactly; what people should know.

        Raises:
            ConfigError: it cannot be, as the scorer is set.
        """
        ...

    def split(self, rows: Sequence[Row], budget: int) -> list[list[int]]:
        """Indices of the rows of each micro-batch: whole trajectories, with at most `budget` tokens
        to compute, padding included; a trajectory that is longer stands alone."""
        ...

    def score(
        self, module: torch.nn.Module, rows: Sequence[Row], *, entropy_grad: bool = False
    ) -> Scores:
        """Entropies are detached unless `entropy_grad` asks for their gradient."""
        ...
