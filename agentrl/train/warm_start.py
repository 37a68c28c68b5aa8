"""The warm start: the expert's episodes as demonstrations, and supervised fine-tuning on them."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from random import Random

from agentrl.core.errors import ConfigError
from agentrl.core.seeds import derive_seed
from agentrl.core.types import Group, Row, Score, Split
from agentrl.rollout.fold import fold
from agentrl.rollout.group import commonest_failure
from agentrl.rollout.share import Solo
from agentrl.train.run import Run
from agentrl.train.trl import sft


def demonstrations(run: Run, split: Split, count: int) -> list[Row]:
    """Rows of the expert's solved episodes on `count` tasks of a split, chosen by the seed.

    Every rank plays all of them, so that all have the same rows.
    """
    tasks = run.config.env.tasks(split)
    order = list(range(len(tasks)))
    Random(derive_seed(run.config.run.seed, "demos", split)).shuffle(order)
    groups = run.loop.run(
        run.stage.worker.collect(
            [tasks[i] for i in order[:count]],
            agent=run.stage.expert(),
            group_size=1,
            label=f"demos/{split}",
            share=Solo(),
        )
    )
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
    run.write_episodes(f"demos-{split}", "demo", "demo", 0, solved)
    good = Score(value=1.0)  # a solved episode is a demonstration, whatever the reward says
    episodes = [replace(group.trajectories[0], score=good) for group in solved]
    return [
        row
        for g, episode in enumerate(episodes)
        for row in fold(Group(task=episode.task, trajectories=(episode,)), index=g)
    ]


def warm_start(run: Run) -> None:
    """SFT on few demonstrations until the dev loss stops falling; optionally a copy on twice
    as many, evaluated and dropped. A resumed run has it behind it."""
    settings = run.config.sft
    if settings is None or run.resumed is not None:
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
