"""The training loop: collect, prepare, advantage, update, push, evaluate, checkpoint.

Read `train` from top to bottom to know what happens to a token between the engine that sampled it
and the weights that it moves.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from random import Random

from agentrl.algo.entropy import tempered
from agentrl.algo.spread import spread
from agentrl.core.config import Config
from agentrl.core.protocols import GroupLoss, Informed
from agentrl.core.seeds import derive_seed
from agentrl.core.types import Group, Sum, Task, Trajectory, merge_metrics
from agentrl.rollout.background import BackgroundLoop, Loop
from agentrl.rollout.fold import fold
from agentrl.train.critic import aimed
from agentrl.train.diagnostics import diagnosed
from agentrl.train.high_entropy import credited
from agentrl.train.kl_reward import scored_step
from agentrl.train.opening import open_run
from agentrl.train.parts import part_metrics
from agentrl.train.prepare import TrainRow, usable, with_old, with_reference
from agentrl.train.resume import Resume
from agentrl.train.run import Run
from agentrl.train.second_channel import with_bonuses
from agentrl.train.starts import begun, observed, open_starts
from agentrl.train.update import update
from agentrl.train.warm_start import warm_start


def train(config: Config, resume: Resume = "never") -> Path:
    """Run a config from its first demonstration, or from a checkpoint, to its report.

    Of several processes all call it; each collects and trains its share of a step's groups.

    Returns:
        The run folder.

    Raises:
        ConfigError: before any training, if something that was asked for cannot be had.
        CheckpointError: the run cannot go on from any of its checkpoints, or the last one cannot
            be written.
        TrainingError: a loss, a gradient or a weight push is broken.
    """
    with event_loop(config) as loop, open_run(config, loop, resume) as run:
        run.baselines()
        warm_start(run)
        open_starts(run)
        run.start_training()
        for step in run.steps():
            began = time.perf_counter()
            rate = run.set_step(step)

            heat = tempered(config.entropy, config.sampling.temperature)
            groups, second = with_bonuses(run.collect(step), config, run.share_done)
            collected = time.perf_counter()

            kept, selection = usable(groups, config.filter)
            folded = [
                row
                for index, group in enumerate(kept)
                for row in fold(group, index=index, temperature=heat)
            ]
            rows = prepare(run, [TrainRow.blank(row) for row in folded])
            scored, penalty = scored_step(
                kept, rows, kl=config.kl, share=config.parallel, needs=config.advantage.needs
            )
            values = config.advantage(scored)
            credit = spread(folded, kept, values, shared=config.rollout.shared)
            credit = second.added(credit, folded, kept, config.rollout.shared)
            items, focus = credited(rows, credit, config.entropy, config.parallel)
            parts = minibatches(aimed(items, kept, values), kept, config, step)
            worth = run.critic.fit(parts) if run.critic is not None else {}

            run.restart()
            losses = [
                update(
                    part,
                    objective=run.objective,
                    scorer=config.scorer,
                    parallel=config.parallel,
                    module=run.module,
                    budget=config.optim.tokens_per_microbatch,
                    grad_clip=config.optim.grad_clip,
                )
                for part in parts
                if config.critic is None or step >= config.critic.warmup
            ]
            gap = run.push(items)

            done = time.perf_counter()
            timing = {
                "time/rollout_s": Sum(collected - began),
                "time/update_s": Sum(done - collected),
                "time/step_s": Sum(done - began),
                "time/tokens_per_s": Sum(float(sampled_tokens(groups)), done - began),
                "sync/probe_gap": Sum(gap),
                "optim/lr": Sum(rate),
                "rollout/temperature": Sum(heat),
            }
            found = {**selection, **second.metrics, **penalty, **values.metrics, **focus, **worth}
            found |= merge_metrics(losses)
            if config.entropy is not None:
                config.entropy.observe(found.get("loss/entropy", Sum(0.0, 0.0)).mean)
            if isinstance(config.curriculum, Informed):
                told = config.parallel.exchange(outcomes_of(groups))
                config.curriculum.observe([outcome for part in told for outcome in part])
            run.env_steps += env_steps(groups)
            metrics = {
                **episode_metrics(groups),
                **diagnosed(groups, config.styles, run.stage.policy.tokenizer.decode),
                **observed(run, groups),
                **timing,
                **found,
            }
            metrics["run/env_steps"] = Sum(float(run.env_steps))
            dropped = [group for group in groups if not any(group is other for other in kept)]
            run.record(step + 1, [*kept, *dropped], items, metrics)
            run.evaluate_and_save(step + 1)
        run.finish()
        return run.folder


def event_loop(config: Config) -> AbstractContextManager[Loop]:
    """Where episodes are played: in the background where they go on while the trainer trains."""
    is_alone = config.rollout.mode == "sync" or config.rollout.replay is not None
    return asyncio.Runner() if is_alone else BackgroundLoop()


def prepare(run: Run, items: Sequence[TrainRow]) -> list[TrainRow]:
    """Logprobs under the weights before the update (unless there is one update and nobody asks for
    entropies: then the live forward serves, detached) or the sampler's own, as `optim.old` says,
    and under the reference if there is a KL, or a loss that compares siblings; values where there
    is a critic."""
    config, budget = run.config, run.config.optim.tokens_per_microbatch
    # Sharded weights are gathered in every forward pass, so all ranks must make as many.
    meeting = None if config.parallel.shares_module else config.parallel
    ready = list(items)
    wants_entropies = "entropies" in config.advantage.needs or (
        config.entropy is not None and config.entropy.top < 1
    )
    is_live = config.optim.updates_per_batch * config.optim.epochs == 1
    if wants_entropies or (config.optim.old == "recompute" and not is_live):
        ready = with_old(ready, config.scorer, run.module, budget, meeting)
    if config.optim.old == "sampler":
        ready = [replace(row, old_logprobs=row.row.sampler_logprobs) for row in ready]
    if config.needs_reference:
        adapter_off = getattr(run.stage.policy.module, "disable_adapter", None)
        if run.reference is not None:
            ready = with_reference(ready, config.scorer, run.reference, budget)
        elif adapter_off is not None:
            ready = with_reference(
                ready, config.scorer, run.stage.policy.module, budget, adapter_off()
            )
    return ready if run.critic is None else run.critic.valued(ready)


def minibatches(
    items: Sequence[TrainRow], groups: Sequence[Group], config: Config, step: int
) -> list[list[TrainRow]]:
    """The step's updates: each epoch cuts the ring of groups, from a random one on, in shares of as
    many trajectories; a group is parted only where a cut goes through it, and not at all where the
    loss compares siblings.

    Siblings stay together, since a scorer may compute what they share once. Neighbours in the ring
    belong to different ranks (and the tasks come in random order), so that each has its part of an
    update. All ranks cut the trajectories of all of them, so that an update has the same ones
    whatever the number of processes; a share without rows of this rank is an empty list.
    """
    settings = config.optim
    parts: list[list[TrainRow]] = []
    by_trajectory: dict[tuple[int, int], list[TrainRow]] = {}
    for item in items:
        by_trajectory.setdefault(item.key, []).append(item)
    shares = settings.updates_per_batch
    for epoch in range(settings.epochs):
        ring = [[(g, i) for i in group.scored] for g, group in enumerate(groups)]
        if shares * settings.epochs > 1:
            rng = Random(derive_seed(config.run.seed, "minibatches", step, epoch))
            for siblings in ring:
                rng.shuffle(siblings)
            first = rng.randrange(max(len(ring), 1))
            ring = ring[first:] + ring[:first]
        # What is dealt out: trajectories one by one, or all of a group together.
        units = ring if isinstance(config.loss, GroupLoss) else [[k] for keys in ring for k in keys]
        cuts = [share * len(units) // shares for share in range(shares + 1)]
        for begin, end in pairwise(cuts):
            chosen = [key for unit in units[begin:end] for key in unit]
            parts.append([item for key in chosen for item in by_trajectory.get(key, ())])
    return parts


def sampled_tokens(groups: Sequence[Group]) -> int:
    """Tokens that the policy sampled in these groups."""
    return sum(t.n_tokens for group in groups for t in group.trajectories)


def env_steps(groups: Sequence[Group]) -> int:
    """Steps that the env took in these groups; what a branch inherits was stepped once."""
    episodes = [t for group in groups for t in group.trajectories]
    led = sum(len(t.start.actions) for t in episodes)
    return led + sum(len(t.turns) - (t.parent.turn if t.parent else 0) for t in episodes)


def episode_metrics(groups: Sequence[Group]) -> dict[str, Sum]:
    """Means over the episodes that did not fail."""
    episodes = [t for g in groups for t in g.trajectories if not t.stop.is_failure]
    scores = [t.score.value for t in episodes if t.score]
    turns = [turn for t in episodes for turn in t.turns]
    n, k = float(len(episodes)), float(len(turns))
    told = sorted({name for t in episodes for name in t.metrics} - {"prompt_too_long"})
    return {
        "rollout/success": begun(episodes, away=False),
        "rollout/reward": Sum(sum(scores), float(len(scores))),
        "rollout/turns": Sum(k, n),
        "rollout/tokens": Sum(float(sum(t.n_tokens for t in episodes)), n),
        "rollout/rows": Sum(float(sum(t.turns[-1].row + 1 for t in episodes if t.turns)), n),
        "rollout/invalid": Sum(float(sum(turn.invalid for turn in turns)), k),
        "rollout/truncated": Sum(float(sum(t.stop.is_truncation for t in episodes)), n),
        "rollout/prompt_too_long": Sum(
            sum(t.metrics.get("prompt_too_long", 0.0) for t in episodes)
        ),
        "time/env_s": Sum(sum(t.env_seconds for t in episodes)),
        **{f"env/{name}": mean_of(name, episodes) for name in told},
        **part_metrics(episodes),
    }


def outcomes_of(groups: Sequence[Group]) -> list[tuple[Task, float]]:
    """The task of each group and its share of successes; groups whose every episode failed, or that
    did not begin at the task's own start, have none."""
    outcomes = []
    for group in groups:
        played = [bool(t.success) for t in group.trajectories if not t.stop.is_failure]
        if played and not group.start.actions:
            outcomes.append((group.task, sum(played) / len(played)))
    return outcomes


def mean_of(name: str, episodes: Sequence[Trajectory]) -> Sum:
    """Mean of a metric that the env reports, over the episodes in which it does."""
    values = [t.metrics[name] for t in episodes if name in t.metrics]
    return Sum(sum(values), float(len(values)))
