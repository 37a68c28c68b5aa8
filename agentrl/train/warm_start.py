"""The warm start: episodes of the expert, or of what exploring found, and fine-tuning on them."""

from __future__ import annotations

import copy
import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

from agentrl.core.errors import ConfigError
from agentrl.core.exploring import Found
from agentrl.core.protocols import Agent, StartSampler
from agentrl.core.seeds import derive_seed
from agentrl.core.types import Group, Json, Row, Score, Split, Start, Task
from agentrl.rollout.fold import fold
from agentrl.rollout.group import commonest_failure
from agentrl.rollout.share import Solo
from agentrl.train.checkpoint import write_whole
from agentrl.train.run import Run
from agentrl.train.trl import sft


def demonstrations(run: Run, split: Split, count: int) -> list[Row]:
    """Rows of episodes on `count` tasks of a split, chosen by the seed: those that the expert
    solved, or all that a random player played.

    Every rank plays all of them, so that all have the same rows.
    """
    is_expert = run.config.sft_source == "expert"
    agent = run.stage.expert() if is_expert else run.stage.random()
    groups = played(run, chosen_tasks(run, "demos", split, count), agent, split)
    if not is_expert:
        whole = [group for group in groups if group.trajectories[0].failure is None]
        failed = f"{len(groups) - len(whole)} of {len(groups)} episodes of a random player failed"
        if not whole:
            raise ConfigError(f"sft: {failed}; {commonest_failure(groups)}")
        if len(whole) < len(groups):
            run.say(f"sft: {failed}; {commonest_failure(groups)}")
        return rows_of(run, f"demos-{split}", whole)
    solved = [group for group in groups if group.trajectories[0].success]
    if not solved:
        rules, failure = run.stage.worker.table.rules, commonest_failure(groups)
        stops = Counter(group.trajectories[0].stop for group in groups)
        raise ConfigError(
            f"sft: the expert solved none of {len(groups)} {split} tasks (stops: "
            f"{', '.join(f'{stop} {count}' for stop, count in stops.items())}) within "
            f"rollout.max_turns={rules.max_turns}, sampling.max_tokens={rules.max_tokens} and "
            f"a context of {rules.max_context} tokens{'; ' if failure else ''}{failure}"
        )
    if len(solved) < len(groups):
        run.say(f"sft: the expert solved {len(solved)} of {len(groups)} {split} tasks")
    return rows_of(run, f"demos-{split}", solved)


def chosen_tasks(run: Run, purpose: str, split: Split, count: int) -> list[Task]:
    """`count` tasks of a split, in an order that the seed decides."""
    tasks = run.config.env.tasks(split)
    order = list(range(len(tasks)))
    Random(derive_seed(run.config.run.seed, purpose, split)).shuffle(order)
    return [tasks[i] for i in order[:count]]


def played(
    run: Run,
    tasks: Sequence[Task],
    agent: Agent,
    label: str,
    starts: StartSampler | None = None,
) -> list[Group]:
    """One episode of each task, on every rank; its steps are counted with the env's."""
    groups = run.loop.run(
        run.stage.worker.collect(
            tasks, agent=agent, group_size=1, label=f"demos/{label}", share=Solo(), starts=starts
        )
    )
    episodes = [group.trajectories[0] for group in groups]
    run.env_steps += sum(len(one.start.actions) + len(one.turns) for one in episodes)
    return groups


def rows_of(run: Run, name: str, groups: Sequence[Group]) -> list[Row]:
    """Rows of whole episodes, which are written down as `name`."""
    run.write_episodes(name, "demo", "demo", 0, groups)
    good = Score(value=1.0)  # a demonstration is trained on, whatever the reward says
    episodes = [replace(group.trajectories[0], score=good) for group in groups]
    return [
        row
        for g, episode in enumerate(episodes)
        for row in fold(Group(task=episode.task, trajectories=(episode,)), index=g)
    ]


def warm_start(run: Run) -> None:
    """SFT on few demonstrations until the dev loss stops falling; optionally a copy on twice
    as many, evaluated and dropped. A resumed run has it behind it."""
    settings = run.config.sft
    if run.resumed is not None:
        return
    if run.config.explore is not None and run.config.sft_source != "explore":
        began = time.perf_counter()
        _tell(run, find(run), (), time.perf_counter() - began)
    if settings is None:
        return
    if run.config.sft_source == "explore":
        _sft(run, "sft", *explored(run))
        return
    dev = demonstrations(run, "dev", settings.dev_demos)
    demos = demonstrations(run, "train", 2 * settings.demos)
    once = [row for row in demos if row.group < settings.demos]
    fresh = copy.deepcopy(run.module) if settings.double else None
    _sft(run, "sft", once, dev)
    if fresh is not None:
        trained, run.stage.policy.module = run.module, fresh
        _sft(run, "sft_double", demos, dev)
        run.stage.policy.module = trained
        run.loop.run(run.config.engine.start(run.stage.policy))


def find(run: Run) -> list[Found]:
    """What exploring finds; every rank keeps an archive of its own, all alike."""
    config = run.config
    assert config.explore is not None
    found = run.loop.run(
        config.explore.find(
            chosen_tasks(run, "explore", "train", config.explore.tasks),
            config.env,
            run.stage.worker.runner,
            archive_folder(run),
            seed=config.run.seed,
            say=run.say,
            voice=run.stage.voice,
        )
    )
    run.env_steps += sum(one.steps for one in found)
    return found


def archive_folder(run: Run) -> Path:
    """Where this rank's archive lies."""
    rank = run.config.parallel.rank
    return run.folder if run.is_first else run.folder / f"rank{rank}"


def explored(run: Run) -> tuple[list[Row], list[Row]]:
    """What exploring found, played again in the policy's own seat: rows to learn from, and rows on
    which the dev loss is measured. Every rank explores all of it; `explore.json` says what it took.

    Raises:
        ConfigError: fewer than two tasks were solved, and solved again.
    """
    config, began = run.config, time.perf_counter()
    assert config.sft is not None
    found = find(run)
    by_task = [played_again(run, one) for one in found if one.ways or one.lessons]
    again = [group for groups in by_task for group in groups]
    told = [[g for g in groups if g.trajectories[0].success] for groups in by_task]
    solved = [groups for groups in told if groups]
    _tell(run, found, again, time.perf_counter() - began)
    count = sum(map(len, solved))
    if count < len(again):
        run.say(f"explore: {len(again) - count} of {len(again)} ways did not succeed again")
    if len(solved) < 2:
        reason = next((one.failure for one in found if one.failure), "")
        raise ConfigError(
            f"explore: {len(solved)} of {len(found)} tasks were solved, and the warm start needs "
            f"2: raise explore.budget or explore.tasks{f' ({reason})' if reason else ''}"
        )
    held = max(1, min(config.sft.dev_demos, len(solved) // 5))
    train = [group for groups in solved[held:] for group in groups]
    dev = [group for groups in solved[:held] for group in groups]
    return rows_of(run, "demos-train", train), rows_of(run, "demos-dev", dev)


@dataclass(frozen=True, kw_only=True)
class There:
    """Episodes begin where they are told."""

    start: Start

    def sample(self, task: Task, rng: Random) -> Start:
        """Always there."""
        return self.start


def played_again(run: Run, found: Found) -> list[Group]:
    """What was found of a task, in the policy's own seat: a lesson from each of its starts, or the
    best of the ways that succeeds; the last one where none does."""
    groups: list[Group] = []
    if found.lessons and found.name is not None:
        agent = run.stage.plan(found.plan, found.name)
        for number, start in enumerate(found.lessons):
            label = f"explore/{number}"
            groups += played(run, [found.task], agent, label, There(start=start))
    if not any(group.trajectories[0].success for group in groups):
        for way in found.ways:
            groups += played(run, [found.task], run.stage.follow(way), "explore")
            if groups[-1].trajectories[0].success:
                break
    return groups


def _tell(run: Run, found: Sequence[Found], again: Sequence[Group], seconds: float) -> None:
    if run.is_first:
        told = _told(found, again, seconds, run.env_steps)
        write_whole(run.folder / "explore.json", json.dumps(told, indent=1) + "\n")


def _told(
    found: Sequence[Found], again: Sequence[Group], seconds: float, env_steps: int
) -> dict[str, Json]:
    """What exploring took; the steps of playing the ways again are counted with the env's."""
    keys = sorted({key for one in found for key in one.metrics})
    own = [one for one in found if one.task.hindsight_of is None]
    return {
        "tasks": len(own),
        "solved": sum(bool(one.ways) for one in own),
        "hindsight": len(found) - len(own),
        "failed": sum(one.failure is not None for one in found),
        "kept": sum(bool(group.trajectories[0].success) for group in again),
        "env_steps": env_steps,
        "replayed": sum(one.replayed for one in found),
        "diverged": sum(one.diverged for one in found),
        "cells": sum(one.cells for one in found),
        "first": [one.first for one in own],
        "metrics": {key: sum(one.metrics.get(key, 0.0) for one in found) for key in keys},
        "first_success": _first_success(found),
        "lengths": [len(group.trajectories[0].turns) for group in again],
        "seconds": seconds,
    }


def _first_success(found: Sequence[Found]) -> int | None:
    """Env steps that exploring had taken when it first succeeded on any task."""
    before = 0
    for one in found:
        if one.first is not None:
            return before + one.first
        before += one.steps
    return None


def _sft(run: Run, name: str, rows: Sequence[Row], dev: Sequence[Row]) -> None:
    assert run.config.sft is not None
    tokens = sum(sum(row.mask) for row in rows)
    demos = len({row.group for row in rows})
    run.say(f"{name}: {demos} demonstrations, {tokens} trained tokens")
    result = sft(
        run.stage.policy,
        rows,
        dev,
        run.config.sft,
        seed=run.config.run.seed,
        say=run.say,
        world=run.config.parallel.world,
    )
    run.sft_steps[name] = result.best_step
    if not run.config.engine.shares_module:
        run.loop.run(run.config.engine.start(run.stage.policy))
    if result.is_exhausted:
        run.say(f"{name}: the dev loss still fell at sft.max_steps={run.config.sft.max_steps}")
    run.final_evaluation(name, run.agent)
