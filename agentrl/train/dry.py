"""`agentrl train --dry-run`: one rendered episode with its mask, and the plan of a step."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from agentrl.core.config import Config
from agentrl.core.protocols import Agent, abilities
from agentrl.core.types import Row
from agentrl.evaluate.runner import Stage, build_stage, first_tasks
from agentrl.rollout.fold import fold
from agentrl.train.lora import add_lora
from agentrl.train.opening import check_needs


def dry_run(config: Config) -> list[str]:
    """Load everything, play one training task, and say what a step would do; train nothing.

    The expert plays if the env has one, else the policy. Sampled tokens stand in `[brackets]`.

    Raises:
        ConfigError: as `train` would.
    """
    check_needs(config)
    with asyncio.Runner() as loop:
        stage = loop.run(build_stage(config))
        if config.lora is not None:
            stage.policy.module = add_lora(stage.policy.module, config.lora, config.run.seed)
        try:
            return loop.run(_describe(config, stage))
        finally:
            loop.run(stage.worker.close())
            loop.run(config.engine.close())


async def _describe(config: Config, stage: Stage) -> list[str]:
    has_expert = "expert_action" in abilities(config.env)
    agent: Agent = stage.expert() if has_expert else stage.engine_agent()
    await config.engine.start(stage.policy)
    tasks = first_tasks(config.env.tasks("train"), 1)
    [group] = await stage.worker.collect(tasks, agent=agent, group_size=1, label="dry-run")
    episode = group.trajectories[0]
    if episode.failure is not None:
        return [f"the {episode.failure.where} failed: {episode.failure.error}"]
    rows = fold(group, index=0)
    lines = [
        f"one episode of task {episode.task.id}, played by the "
        f"{'expert' if has_expert else 'policy'}: {len(episode.turns)} turns, {len(rows)} row(s), "
        f"stop {episode.stop}, "
        f"success {episode.success}, reward {episode.score.value if episode.score else None}",
        "",
    ]
    rewrite = stage.first_rewrite([episode])
    if rewrite is not None:
        lines += [rewrite, ""]
    for row in rows:
        lines += [_marked(row, stage), ""]
    return lines + _plan(config, stage, rows)


def _marked(row: Row, stage: Stage) -> str:
    """The row's tokens as text, each sampled one in brackets."""
    pieces = (str(stage.policy.tokenizer.decode([token])) for token in row.ids)
    return "".join(
        f"[{piece}]" if sampled else piece for piece, sampled in zip(pieces, row.mask, strict=True)
    )


def _plan(config: Config, stage: Stage, rows: Sequence[Row]) -> list[str]:
    trainable = sum(p.numel() for p in stage.policy.module.parameters() if p.requires_grad)
    episodes = config.rollout.tasks_per_step * config.rollout.group_size
    tokens = sum(len(row.ids) for row in rows) * episodes
    sampled = sum(sum(row.mask) for row in rows) * episodes
    updates = config.optim.updates_per_batch * config.optim.epochs
    budget = config.optim.tokens_per_microbatch
    return [
        f"model: {stage.policy.parameter_count():,} weights, {trainable:,} of them trained, "
        f"{len(stage.policy.tokenizer)} token ids, {stage.policy.context_length} positions",
        f"step: {config.rollout.tasks_per_step} tasks x {config.rollout.group_size} episodes = "
        f"{episodes} episodes, about {tokens:,} tokens ({sampled:,} sampled) if all are like this",
        f"update: {updates} optimiser step(s) of about {episodes // config.optim.updates_per_batch}"
        f" episodes, {-(-tokens // budget)} micro-batch(es) of at most {budget:,} tokens in all",
        f"run: {config.run.steps} steps into {config.run_folder}",
    ]
