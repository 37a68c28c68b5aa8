"""Our worker and engine as TRL's `rollout_func`: tokens, logprobs and mask as they were sampled.

TRL keeps one row for each episode and pads its own tensors; everything before that is ours: action
format, context policy, limits, rewards, deadlines. What TRL cannot hold is refused, not bent: an
episode of several rows, a temperature that is not the trainer's, weights in pieces.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from itertools import groupby
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, Self, cast

from agentrl.core.config import Config
from agentrl.core.errors import ConfigError, DataError, TrainingError
from agentrl.core.types import Group, Row, Task, Trajectory
from agentrl.engines.policy import policy_of
from agentrl.evaluate.runner import Stage, stage_for
from agentrl.rollout.fold import fold
from agentrl.rollout.share import Solo
from agentrl.train.trl.dataset import task_of
from agentrl.train.trl.home import Home

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase
    from trl import GRPOTrainer

logger = logging.getLogger(__name__)


def rollout_func(config: Config) -> Rollouts:
    """`GRPOTrainer(rollout_func=rollout_func(config), reward_funcs=env_score, ...)`.

    Of the config count `env`, `actions`, `context`, `renderer`, `engine`, `sampling`, `rollout`,
    `strategy` and `reward`. Model, tokenizer, group size, advantages, loss and optimiser are TRL's.
    """
    return Rollouts(config)


def env_score(
    *,
    score: list[float | None],
    success: list[float | None],
    log_metric: Callable[[str, float], None] | None = None,
    **_: object,
) -> list[float | None]:
    """The reward function beside `rollout_func`: what the config's reward said of each episode.

    None (TRL leaves it out) where the episode failed or the reward could not tell.
    """
    known = [value for value in success if value is not None]
    if log_metric is not None and known:
        log_metric("rollout/success", sum(known) / len(known))
    return score


class Entry(NamedTuple):
    """One row of what TRL gets."""

    prompt_ids: list[int]
    completion_ids: list[int]
    logprobs: list[float]
    env_mask: list[int]
    score: float | None
    success: float | None


class Rollouts:
    """A callable that TRL asks for a batch of episodes; it closes envs and engine at the end."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._home = Home()
        self._stage: Stage | None = None
        self._calls = 0

    def __call__(self, prompts: Sequence[object], trainer: GRPOTrainer) -> dict[str, list[object]]:
        """Play the task of each prompt; neighbours with one task are siblings of a group.

        Raises:
            ConfigError: the trainer and the config contradict each other.
            DataError: an episode has several rows, or a prompt carries no task.
            TrainingError: every episode failed.
        """
        stage = self._ready(trainer)
        tasks = [task_of(prompt) for prompt in prompts]
        sizes = [(task, len(list(same))) for task, same in groupby(tasks)]
        module = stage.policy.module
        was_training = module.training
        try:
            groups = self._home.run(self._play(stage, trainer, sizes))
        finally:
            module.train(was_training)
        self._calls += 1
        filler = int(cast("PreTrainedTokenizerBase", trainer.processing_class).pad_token_id)
        entries = [entry for group in groups for entry in _entries(group, filler)]
        _refuse_failures([t for group in groups for t in group.trajectories])
        return {field: [getattr(entry, field) for entry in entries] for field in Entry._fields}

    async def _play(
        self, stage: Stage, trainer: GRPOTrainer, sizes: Sequence[tuple[Task, int]]
    ) -> list[Group]:
        """The groups in the order of `sizes`; those of one size are in flight together."""
        engine = self._config.engine
        await engine.load_weights({}, self._calls)  # shared with TRL, and moved since the last call
        found: dict[int, Group] = {}
        rank = trainer.accelerator.process_index
        for size in sorted({size for _, size in sizes}):
            places = [i for i, (_, count) in enumerate(sizes) if count == size]
            groups = await stage.worker.collect(
                [sizes[i][0] for i in places],
                agent=stage.engine_agent(),
                group_size=size,
                label=f"trl/{rank}/{size}",
                step=self._calls,
                share=Solo(),  # TRL cuts its batches for the ranks itself
            )
            for i, group in zip(places, groups, strict=True):
                found[i] = _whole(group, size)
        return [found[i] for i in range(len(sizes))]

    def _ready(self, trainer: GRPOTrainer) -> Stage:
        """The stage round the trainer's own module; built at the first call."""
        if self._stage is None:
            _check(self._config, trainer)
            module = cast("PreTrainedModel", trainer.accelerator.unwrap_model(trainer.model))
            tokenizer = cast("PreTrainedTokenizerBase", trainer.processing_class)
            self._stage = stage_for(self._config, policy_of(module, tokenizer))
            self._home.run(self._config.engine.start(self._stage.policy))
        return self._stage

    def close(self) -> None:
        """Close envs and engine; may be called twice."""
        if self._stage is not None:
            self._home.run(self._stage.worker.close())
            self._home.run(self._config.engine.close())
            self._stage = None
        self._home.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _check(config: Config, trainer: GRPOTrainer) -> None:
    if trainer.temperature != config.sampling.temperature:
        raise ConfigError(
            f"sampling.temperature is {config.sampling.temperature} and GRPOConfig.temperature is "
            f"{trainer.temperature}: logprobs must be of one distribution, so set both alike"
        )
    plugin = getattr(trainer.accelerator.state, "deepspeed_plugin", None)
    if trainer.is_fsdp_enabled or (plugin is not None and plugin.zero_stage == 3):
        raise ConfigError(
            "rollout_func samples from TRL's own module, and under FSDP or ZeRO-3 that holds only "
            "a shard of the weights: use ZeRO-2 or one process, environment_factory, or agentrl "
            "train"
        )


def _whole(group: Group, size: int) -> Group:
    if len(group.trajectories) != size:
        raise ConfigError(
            f"strategy: TRL asked for {size} episodes of task {group.task.id} and got "
            f"{len(group.trajectories)}: its groups have a fixed size, use strategy=flat"
        )
    return group


def _refuse_failures(episodes: Sequence[Trajectory]) -> None:
    failures = [t.failure for t in episodes if t.failure is not None]
    if failures and len(failures) == len(episodes):
        raise TrainingError(
            f"every one of {len(episodes)} episodes failed, so there is nothing to learn from; the "
            f"{failures[0].where} failed first: {failures[0].error}"
        )
    if failures:
        logger.warning(
            "%d of %d episodes failed and are not trained on; the first: %s: %s",
            len(failures),
            len(episodes),
            failures[0].where,
            failures[0].error,
        )


def _entries(group: Group, filler: int) -> list[Entry]:
    """The group's episodes; one that is not trained on is a row of one masked token."""
    rows: dict[int, list[Row]] = {}
    for row in fold(group, index=0):
        rows.setdefault(row.trajectory, []).append(row)
    return [
        _entry(episode, rows.get(i, []), filler) for i, episode in enumerate(group.trajectories)
    ]


def _entry(episode: Trajectory, rows: Sequence[Row], filler: int) -> Entry:
    score = episode.score.value if episode.is_scored and episode.score is not None else None
    success = None if episode.success is None else float(episode.success)
    if not rows:
        return Entry([filler], [filler], [0.0], [0], score, success)
    if len(rows) > 1:
        raise DataError(
            f"an episode of task {episode.task.id} has {len(rows)} rows, since its context policy "
            "or chat template rewrites history, and TRL trains one: use context=full and a "
            "template that only appends, or agentrl train"
        )
    row, first = rows[0], len(episode.turns[0].prompt_ids)
    return Entry(
        list(row.ids[:first]),
        list(row.ids[first:]),
        list(row.sampler_logprobs[first:]),
        [int(sampled) for sampled in row.mask[first:]],
        score,
        success,
    )
