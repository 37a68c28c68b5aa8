"""One rank of a whole run: `python -m support.whole_ranks FOLDER BACKEND VARIANT...`.

Each variant is trained once in one piece, and once in two: the second resumes the first.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.distributed as dist

from agentrl.core import registry
from agentrl.core.config import Config
from agentrl.core.errors import ConfigError
from agentrl.train.loop import train
from support.chatter import ChatterEnv, SlowChatterEnv
from support.whole_runs import tiny

VARIANTS: Mapping[str, tuple[str, ...]] = {
    "full": (),
    "lora": ("lora.rank=2", "kl=k3", "optim.updates_per_batch=2", "optim.epochs=2"),
    "warm": (
        "sft={demos: 3, dev_demos: 2, max_steps: 4, eval_every: 2, batch_rows: 4}",
        "kl={name: k1, beta: 0.5, placement: reward}",
        "entropy={name: adaptive, target: 99, top: 0.5}",
    ),
    "bonus": (
        "bonus=[{name: counts, kind: global}, {name: counts, pool: task, weight: 0.5}]",
        "channel={level: turn, anneal: none, adapt: false}",
        "env.length=3",
        "sampling.max_tokens=1",
    ),
    "dynamic": (
        "strategy=dynamic",
        "filter=zero_std",
        "reward=success",
        "env.length=2",
        "sampling.max_tokens=6",
    ),
}
"""Under `dynamic` the ranks make up for their own groups, so other tasks are played than by one."""
AHEAD = (
    *("rollout.mode=async", "rollout.max_staleness=1", "mismatch=tis", "rollout.record=true"),
    *("rollout.tasks_per_step=4", "env=slow-chatter"),
)
"""A variant that no two runs repeat: rollouts run ahead of the trainer."""
VALUES = (
    *("advantage=bilevel_gae", "critic={lr: 1e-2, epochs: 2}", "optim.updates_per_batch=2"),
    "rollout.max_turns=1",
)
"""A variant with a critic, which not every backend trains; episodes are cut off."""
SETTINGS = (
    "run.steps=4",
    "rollout.tasks_per_step=3",
    "checkpoint.every=1",
    "checkpoint.keep=9",
    "eval.every=2",
    "eval.tasks=3",
)


def config(folder: Path, variant: str, *overrides: str) -> Config:
    """The run of a variant."""
    chosen = {**VARIANTS, "ahead": AHEAD, "values": VALUES}[variant]
    return tiny(folder, *SETTINGS, *chosen, *overrides)


def main(folder: Path, backend: str, *variants: str) -> None:
    """Every variant, twice; before that, what is refused."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo")  # one for all runs: a process can join only once
    registry.names("env")
    registry._parts["env"] |= {"chatter": ChatterEnv, "slow-chatter": SlowChatterEnv}
    try:
        train(config(folder / "odd", "warm", f"parallel={backend}", "sft.batch_rows=3"))
    except ConfigError as error:
        (folder / f"refused-{dist.get_rank()}").write_text(str(error))
    for variant in variants:
        train(config(folder / f"straight-{variant}", variant, f"parallel={backend}"))
        again = folder / f"resumed-{variant}"
        train(config(again, variant, f"parallel={backend}", "run.steps=2"))
        train(config(again, variant, f"parallel={backend}"), "auto")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
