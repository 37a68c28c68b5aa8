"""Rollouts that run ahead on two processes: each keeps its own books, and no task is lost."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import load_file

from agentrl.core.types import Group
from agentrl.rollout.record import read_groups
from agentrl.track.jsonl import read_metrics
from agentrl.train.checkpoint import Checkpoints
from agentrl.train.loop import train
from support.launch import launch
from support.whole_ranks import config
from support.whole_runs import training_envs

__all__ = ["training_envs"]
pytestmark = [
    pytest.mark.distributed,
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.usefixtures("training_envs"),
]


def schedule(run: Path) -> list[Group]:
    return [group for path in sorted((run / "schedule").iterdir()) for group in read_groups(path)]


@pytest.mark.parametrize("backend", ["ddp", "fsdp", "deepspeed"])
def test_two_processes_ahead_of_the_trainer_train_every_task_once_also_over_a_resume(
    tmp_path: Path, backend: str
) -> None:
    arguments = ["-m", "support.whole_ranks", str(tmp_path), backend, "ahead"]
    with launch(arguments, world=2, deadline_s=500) as wait:
        for end in wait():
            assert end.code == 0, end.output[-3000:]
    alone = train(config(tmp_path / "alone", "ahead"))
    asked = sorted(group.task.id for group in schedule(alone))
    for kind in ("straight", "resumed"):
        run = tmp_path / f"{kind}-ahead" / "tiny"
        assert sorted(group.task.id for group in schedule(run)) == asked
        stalest = [float(str(line["rollout/staleness_max"])) for line in read_metrics(run)]
        assert len(stalest) == 4
        assert max(stalest) <= 1
        newest = Checkpoints(folder=run / "checkpoints").newest()
        assert newest is not None
        kept = sorted(path.name for path in (newest / "rollouts").iterdir())
        assert kept == [f"{what}.{rank}.json{end}" for what, end in ENDS for rank in (0, 1)]
        assert load_file(newest / "model.safetensors")


ENDS = (("books", ""), ("groups", ".gz"))
