"""The tree of settings of a run: one YAML file, dotted overrides, every default.

A section is a frozen dataclass here; a part is a class somewhere else whose fields are its settings
(`agentrl list` names them all). `core/loading.py` reads and writes the tree; nothing here imports
torch. `Ge(0)` and the like in a type are ranges, checked when a config is loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt, MinLen

from agentrl.core import protocols, registry
from agentrl.core.channel import Channel
from agentrl.core.critic import Critic
from agentrl.core.errors import ConfigError
from agentrl.core.loading import load
from agentrl.core.presets import with_preset
from agentrl.core.shapes import DefaultPart, Named, Slot
from agentrl.core.styles import Styles
from agentrl.core.thinking import Thinking as Thinking
from agentrl.core.types import Json, Split

Count = Annotated[int, Ge(1)]
Seconds = Annotated[float, Gt(0)]


@dataclass(frozen=True, kw_only=True)
class Run:
    """The run as a whole."""

    name: Annotated[str, MinLen(1)] = "run"
    """Name of the run; its folder is `folder/name`."""
    folder: Path = Path("runs")
    """Folder in which runs live."""
    seed: Annotated[int, Ge(0)] = 0
    """Seed of everything random: weights, task order, sampling (0 or more)."""
    steps: Annotated[int, Ge(0)] = 50
    """Reinforcement-learning steps, each a collection of groups and its updates (0: none)."""
    env_steps: Count | None = None
    """Env steps after which no further step is trained: those of exploring, demonstrations and
    training count, evaluations are free. `none`: `steps` alone decides."""
    deterministic: bool = True
    """The same config gives the same bits: episodes advance in step with each other (under
    `rollout.mode: sync`; other modes repeat by `rollout.replay`)."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the model lives; `auto` takes a GPU if there is one."""

    def __post_init__(self) -> None:
        if {"/", "\\"} & set(self.name) or self.name in {".", ".."}:
            raise ConfigError(
                f"name: {self.name!r} is a path; the folder of runs is the key run.folder"
            )


@dataclass(frozen=True, kw_only=True)
class Tokenizer:
    """The byte-level BPE that a model built from a config gets; a pretrained model has its own."""

    vocabulary: Annotated[int, Ge(64), Le(65536)] = 512
    """Most ids that it may have (64 to 65536)."""
    texts: Count = 200
    """Train tasks whose text it is trained on (1 or more)."""


@dataclass(frozen=True, kw_only=True)
class Lora:
    """Train low-rank adapters and leave the model's own weights alone (PEFT)."""

    rank: Count = 16
    """Rank of each adapter (1 or more)."""
    alpha: Annotated[float, Gt(0)] = 32.0
    """Scale of the adapters: their output is multiplied by `alpha / rank` (above 0)."""
    targets: Annotated[str, MinLen(1)] = "all-linear"
    """Which modules get one: `all-linear`, or a regular expression over module names."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How replies are sampled while training."""

    temperature: Annotated[float, Gt(0)] = 1.0
    """Divides the logits (above 0); the trainer's logprobs are of the same distribution."""
    max_tokens: Count = 32
    """Most tokens of one reply (1 or more)."""


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """How episodes are collected, and when they are cut off."""

    tasks_per_step: Count = 16
    """Groups collected for each step (1 or more)."""
    group_size: Annotated[int, Ge(2)] = 8
    """Episodes of the same task and start, compared with each other (2 or more)."""
    max_turns: Count = 16
    """Turns after which an episode is cut off (1 or more)."""
    max_context: Annotated[int, Ge(2)] | None = None
    """Most tokens of prompt and reply together; `none` is what the model can take."""
    mode: Literal["sync", "partial", "async"] = "sync"
    """`sync`: collect, then train, with the same weights. `async`: episodes go on while the trainer
    trains; a step trains on the groups that are complete. `partial`: the same, but the engine
    rests while the trainer trains (over-sampling with early stop: late episodes go on first in the
    next step)."""
    max_staleness: Annotated[int, Ge(0)] = 0
    """Weight versions that a token may be behind the trainer (0 under mode `sync`, else 1 or more);
    `max_staleness + 1` times the groups of a step are in flight."""
    late: Literal["wait", "drop"] = "wait"
    """What happens to a group that would become too stale: the trainer waits for it, or it is
    dropped and counted, which favours short episodes."""
    record: bool = False
    """Keep the groups of each step in the run's folder `schedule`, for `replay`."""
    replay: Path | None = None
    """Folder of a recorded schedule: each step trains on the groups that it trained on then, and
    nothing is sampled but evaluations."""
    deadline_s: Seconds = 120.0
    """Seconds that a whole episode may take, waiting included (above 0)."""
    engine_timeout_s: Seconds = 60.0
    """Seconds that the engine may take for one reply (above 0)."""
    env_timeout_s: Seconds | None = None
    """Seconds that the environment may take for one call; `none` is the environment's own limit."""
    reward_timeout_s: Seconds = 120.0
    """Seconds that the reward may take for one episode, or for one group (above 0)."""
    on_invalid: Literal["tell", "pass", "end"] = "tell"
    """A reply without an action: `tell` the model and use up the turn, `pass` the text on to the
    environment, or `end` the episode."""
    runner: Literal["auto", "inline", "thread", "process"] = "auto"
    """Where environments run; `auto` is what the environment asks for."""
    in_flight: Annotated[int, Ge(0)] = 0
    """Most episodes at a time (0: all of a step)."""
    env_processes: Count = 32
    """Most episodes at a time where each environment is a process (1 or more)."""
    shared: Literal["once", "each"] = "once"
    """Tokens that branches share are trained `once`, or in the row of `each` branch."""

    def __post_init__(self) -> None:
        if self.mode == "sync" and self.max_staleness:
            raise ConfigError(
                f"max_staleness: must be 0 under rollout.mode=sync (got {self.max_staleness})"
            )
        if self.mode != "sync" and not self.max_staleness:
            raise ConfigError(
                f"max_staleness: must be at least 1 under rollout.mode={self.mode} (1 and 2 are "
                "usual); with 0 no episode may run ahead of the trainer, which is mode=sync"
            )


@dataclass(frozen=True, kw_only=True)
class Sft:
    """A warm start: supervised fine-tuning on the expert's episodes, before the first step."""

    source: Literal["auto", "expert", "explore", "random"] = "auto"
    """Who shows: the env's expert, what `explore` found, or a random player, from whom only the
    form of actions can be learned; `auto` is `explore` where there is one, else the expert."""
    demos: Count = 3
    """Train tasks that are shown (1 or more); of what `explore` found, all are."""
    dev_demos: Count = 8
    """Episodes of other tasks, on which the dev loss is measured (1 or more); of what `explore`
    found, at most a fifth."""
    lr: Annotated[float, Gt(0)] = 1e-3
    """Learning rate (above 0)."""
    batch_rows: Count = 16
    """Rows of one update (1 or more), over all processes, which share them evenly."""
    max_steps: Count = 200
    """Most updates (1 or more)."""
    eval_every: Count = 5
    """Updates between measurements of the dev loss (1 or more)."""
    patience: Count = 3
    """Measurements without a new lowest dev loss after which it stops (1 or more)."""
    until: Literal["dev_loss"] = "dev_loss"
    """When to stop: `dev_loss` when it stops falling; the weights with the lowest are kept."""
    double: bool = False
    """Also train a copy on twice the demos, for the report only."""


@dataclass(frozen=True, kw_only=True)
class Optim:
    """How the weights are updated (AdamW)."""

    lr: Annotated[float, Ge(0)] = 1e-5
    """Peak learning rate (0 or more; with 0 a run only plays, and may record)."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """What the learning rate does after the warm-up, until the last step."""
    warmup: Annotated[int, Ge(0)] = 0
    """Steps in which the learning rate rises from 0 (0 or more)."""
    updates_per_batch: Count = 1
    """Updates into which the trajectories of a step are cut (1 or more)."""
    epochs: Count = 1
    """Passes over the trajectories of a step (1 or more)."""
    restart: bool = False
    """Each step's updates begin at the weights that training began with, and with a fresh optimiser
    (expert iteration); the step's episodes are those of the weights before."""
    old: Literal["recompute", "sampler"] = "recompute"
    """The logprobs that ratios are taken against: of the weights before the update, `recompute`d,
    or the `sampler`'s own (then the clip also bounds how stale a token may act)."""
    tokens_per_microbatch: Count = 16384
    """Tokens, padding included, of one forward and backward pass: memory, never the result."""
    grad_clip: Annotated[float, Gt(0)] = 1.0
    """Largest norm of the gradient; longer ones are scaled down to it (above 0)."""
    weight_decay: Annotated[float, Ge(0)] = 0.0
    """Decoupled weight decay (0 or more)."""
    betas: tuple[
        Annotated[float, Ge(0), Lt(1)],
        Annotated[float, Ge(0), Lt(1)],
    ] = (0.9, 0.999)
    """Decay rates of AdamW's running means of gradient and squared gradient (0 to below 1)."""


@dataclass(frozen=True, kw_only=True)
class Eval:
    """Success on tasks that are not trained on."""

    every: Annotated[int, Ge(0)] = 0
    """Steps between evaluations during training (0: none)."""
    split: Split = "dev"
    """Tasks of the evaluations during training, which choose the best checkpoint."""
    tasks: Count = 50
    """Tasks of each evaluation during training (1 or more)."""
    samples: Count = 1
    """Episodes of each task (1 or more)."""
    final_split: Split = "test"
    """Tasks of the evaluation before and after training."""
    final_tasks: Annotated[int, Ge(0)] = 200
    """How many of them (0: no final evaluation)."""
    baselines: bool = True
    """Also play them at random (the floor) and by the expert (the ceiling)."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What is kept on disk beside the best and the last checkpoint."""

    every: Annotated[int, Ge(0)] = 0
    """Steps between checkpoints (0: only at the end)."""
    keep: Count = 2
    """How many of the newest are kept (1 or more)."""


def _sinks() -> tuple[protocols.Sink, ...]:
    return tuple(registry.find("track", name)() for name in ("console", "jsonl"))


def _small_model() -> dict[str, Json]:
    return {
        "model_type": "qwen3",
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "tie_word_embeddings": True,
        "max_position_embeddings": 1024,
    }


@dataclass(frozen=True, kw_only=True)
class Config:
    """Everything that decides a run."""

    run: Run = field(default_factory=Run)
    """The run as a whole: name, folder, seed, steps."""
    model: str | dict[str, Json] = field(default_factory=_small_model)
    """A local folder or hub name of a pretrained model, or a transformers config (with its
    `model_type`) from which a small one is built with random weights."""
    tokenizer: Tokenizer = field(default_factory=Tokenizer)
    """The tokenizer of a model built from a config."""
    lora: Lora | None = None
    """Low-rank adapters; `none` trains all weights."""
    env: Annotated[protocols.Env, Slot("env", many="mixture")] = field(
        default_factory=DefaultPart("env", "babyai")
    )
    """The environment and its settings, or a list of them, each with a `weight`."""
    renderer: Annotated[str, Named("renderer", also=("auto",))] = "auto"
    """Messages to tokens; `auto` takes `template` where the tokenizer has a chat template, else
    `plain`."""
    context: Annotated[protocols.ContextPolicy, Slot("context")] = field(
        default_factory=DefaultPart("context", "full")
    )
    """Which messages of the episode the model is shown."""
    actions: Annotated[protocols.ActionFormat | None, Slot("actions", none="auto")] = None
    """How replies become actions; `auto` is what the environment asks for."""
    engine: Annotated[protocols.Engine, Slot("engine")] = field(
        default_factory=DefaultPart("engine", "generate")
    )
    """What samples the replies."""
    sampling: Sampling = field(default_factory=Sampling)
    """How replies are sampled while training."""
    thinking: Thinking | None = None
    """Reasoning before the action, with a budget; `none` takes the whole reply as the action's."""
    rollout: Rollout = field(default_factory=Rollout)
    """How episodes are collected, and when they are cut off."""
    strategy: Annotated[protocols.Strategy, Slot("strategy")] = field(
        default_factory=DefaultPart("strategy", "flat")
    )
    """How the episodes of a step are spent on its tasks."""
    reward: Annotated[protocols.Reward, Slot("reward")] = field(
        default_factory=DefaultPart("reward", "env")
    )
    """What a trajectory is worth; `env` is the sum of the environment's own rewards."""
    advantage: Annotated[protocols.Advantage, Slot("advantage")] = field(
        default_factory=DefaultPart("advantage", "grpo")
    )
    """How rewards become credit."""
    loss: Annotated[protocols.Loss | protocols.GroupLoss, Slot("loss")] = field(
        default_factory=DefaultPart("loss", "ppo_clip")
    )
    """The surrogate loss of each token, or a loss that compares the trajectories of a group."""
    aggregate: Annotated[protocols.Aggregate, Slot("aggregate")] = field(
        default_factory=DefaultPart("aggregate", "token_mean")
    )
    """How token losses are weighed against each other."""
    kl: Annotated[protocols.Kl | None, Slot("kl")] = None
    """Penalty for leaving the reference model; `none` loads no reference."""
    entropy: Annotated[protocols.Entropy | None, Slot("entropy")] = None
    """Keeps the policy from being too sure too early; `none` only logs its entropy."""
    mismatch: Annotated[protocols.Mismatch | None, Slot("mismatch")] = None
    """Correction of tokens that were not sampled by the weights that are trained."""
    filter: Annotated[protocols.Filter | None, Slot("filter")] = None
    """Which completed groups are trained on; `none` keeps all."""
    curriculum: Annotated[protocols.Curriculum, Slot("curriculum")] = field(
        default_factory=DefaultPart("curriculum", "uniform")
    )
    """Which train tasks come next."""
    explore: Annotated[protocols.Explorer | None, Slot("explore")] = None
    """What finds out, before training, how tasks can be solved; the warm start learns from it."""
    start: Annotated[protocols.Starts | None, Slot("start", none="reset")] = None
    """Where training episodes begin: at a `reset`, or in a cell that `explore` found."""
    bonus: Annotated[protocols.Bonus | None, Slot("bonus", many="several")] = None
    """What is paid for the sake of exploring, beside the reward; a list adds up by `weight`."""
    channel: Channel = field(default_factory=Channel)
    """How `bonus` becomes credit."""
    sft: Sft | None = None
    """A supervised warm start on the expert's episodes; `none` starts from the model as it is."""
    optim: Optim = field(default_factory=Optim)
    """How the weights are updated."""
    critic: Critic | None = None
    """A model of values, for the advantages that need one; `critic={}` takes the defaults."""
    scorer: Annotated[protocols.Scorer, Slot("scorer")] = field(
        default_factory=DefaultPart("scorer", "padded")
    )
    """How logprobs of rows are computed in training."""
    parallel: Annotated[protocols.Parallel, Slot("parallel")] = field(
        default_factory=DefaultPart("parallel", "single")
    )
    """The training backend: who holds the weights and how gradients meet."""
    eval: Eval = field(default_factory=Eval)
    """Success on tasks that are not trained on."""
    checkpoint: Checkpoint = field(default_factory=Checkpoint)
    """What is kept on disk."""
    styles: Styles | None = None
    """Kinds of behaviour whose shares and successes are counted."""
    track: tuple[Annotated[protocols.Sink, Slot("track")], ...] = field(default_factory=_sinks)
    """Where metrics go: a list."""

    def __post_init__(self) -> None:
        self._check_model()
        self._check_explore()
        self._check_lengths()
        self._check_mode()
        trajectories = self.rollout.tasks_per_step * self.rollout.group_size
        if self.optim.updates_per_batch > trajectories:
            raise ConfigError(
                f"optim.updates_per_batch: must be at most the {trajectories} trajectories of a "
                f"step, tasks_per_step x group_size (got {self.optim.updates_per_batch})"
            )

    @property
    def sft_source(self) -> Literal["expert", "explore", "random"] | None:
        """Who shows what the warm start learns; None without one."""
        if self.sft is None:
            return None
        if self.sft.source == "auto":
            return "expert" if self.explore is None else "explore"
        return self.sft.source

    @property
    def needs_reference(self) -> bool:
        """Whether logprobs under the weights that training starts from are wanted."""
        return self.kl is not None or isinstance(self.loss, protocols.GroupLoss)

    @property
    def run_folder(self) -> Path:
        """Where the run writes."""
        return self.run.folder / self.run.name

    def _check_model(self) -> None:
        if not self.model:
            raise ConfigError(
                f"model: expected a path, a hub name or a mapping (got {self.model!r})"
            )
        if not isinstance(self.model, str) and not isinstance(self.model.get("model_type"), str):
            raise ConfigError(
                "model: a model built from a config needs its model_type, for example "
                f"model.model_type=qwen3 (got the keys {', '.join(self.model)})"
            )

    def _check_explore(self) -> None:
        if self.start is not None and self.explore is None and self.start.archive is None:
            raise ConfigError("start: needs an archive: set explore=go_explore or start.archive")
        if self.explore is not None and self.sft_source != "explore" and self.start is None:
            raise ConfigError(
                "explore: what is found is learned by the warm start: set sft.source=explore (got "
                f"sft{'=none' if self.sft is None else f'.source={self.sft.source}'})"
            )
        if self.explore is None and self.sft_source == "explore":
            raise ConfigError("sft.source: nothing is explored; set explore=go_explore")

    def _check_mode(self) -> None:
        mode = self.rollout.mode
        if mode != "sync" and self.optim.old == "recompute" and self.mismatch is None:
            raise ConfigError(
                f"mismatch: under rollout.mode={mode} tokens come from older weights, which has to "
                "be corrected: set mismatch=tis (or another: agentrl list mismatch), or "
                "optim.old=sampler"
            )
        if mode != "sync" and not self.strategy.by_group:
            raise ConfigError(
                f"strategy: {registry.slot_of(type(self.strategy))} looks at all groups of a step "
                f"together, which rollout.mode={mode} does not have: use strategy=flat"
            )

    def _check_lengths(self) -> None:
        limit, reply = self.rollout.max_context, self.sampling.max_tokens
        if self.thinking is not None and self.thinking.budget >= reply:
            raise ConfigError(
                f"thinking.budget: must be below sampling.max_tokens={reply}, to leave room for "
                f"the action (got {self.thinking.budget})"
            )
        positions = (
            None if isinstance(self.model, str) else self.model.get("max_position_embeddings")
        )
        if limit is not None and reply >= limit:
            raise ConfigError(
                f"sampling.max_tokens: must be below rollout.max_context={limit} (got {reply})"
            )
        if limit is not None and isinstance(positions, int) and limit > positions:
            raise ConfigError(
                "rollout.max_context: must be at most the model's max_position_embeddings="
                f"{positions} (got {limit})"
            )


@dataclass(frozen=True, kw_only=True)
class Alone:
    """An environment without a run, for a person or a checker."""

    env: Annotated[protocols.Env, Slot("env")]
    """The environment and its settings."""
    actions: Annotated[protocols.ActionFormat | None, Slot("actions", none="auto")] = None
    """How replies become actions; `auto` is what the environment asks for."""

    @property
    def format(self) -> protocols.ActionFormat:
        """The action format, looked up if it is `auto`."""
        return self.actions or DefaultPart("actions", self.env.actions)()


def load_config(
    path: Path | None, overrides: Sequence[str] = (), *, preset: str | None = None
) -> Config:
    """Read a run's config.

    Args:
        path: the YAML file; None for the defaults alone.
        overrides: `a.b=c`, applied in order.
        preset: laid over the file, below the overrides (`core/presets.py`).

    Raises:
        ConfigError: with one line for each problem.
    """
    if path is not None and preset is not None:
        return load(Config, with_preset(path, preset), overrides)
    return load(Config, path, overrides)


def load_alone(name: str, overrides: Sequence[str] = ()) -> Alone:
    """An environment by its name; `level=GoTo` is short for `env.level=GoTo`.

    Raises:
        ConfigError: with one line for each problem.
    """
    heads = tuple(f"{key}{end}" for key in ("env", "actions") for end in "=.")
    full = [text if text.startswith(heads) else f"env.{text}" for text in overrides]
    return load(Alone, {"env": {"name": name}}, full)
