"""Hindsight: what was reached becomes a task of its own, is proved by playing it, and is never
trained on policy."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from agentrl.core.errors import ConfigError, EnvError, TrainingError
from agentrl.core.types import Group, Step, Task
from agentrl.envs.countdown import Countdown
from agentrl.explore.go_explore import GoExplore
from agentrl.track.jsonl import read_lines
from agentrl.track.trajectories import read_episodes
from agentrl.train.loop import train
from agentrl.train.prepare import usable
from support.locks import Lock, found
from support.whole_runs import tiny

HOW = GoExplore(budget=80, hindsight=4)


def test_the_way_to_a_number_solves_the_task_of_that_number(tmp_path: Path) -> None:
    env = Countdown(numbers=4, target_low=20, target_high=100)
    tasks = env.tasks("train")[:4]
    results = found(HOW, env, tmp_path, tasks)
    assert [one.task for one in results[:4]] == list(tasks), "the env's own tasks come first"
    others = results[4:]
    assert len(others) >= 8
    assert len({one.task.id for one in others}) == len(others)
    for one in others:
        assert one.task.hindsight_of in {task.id for task in tasks}
        assert 20 <= int(str(one.task.data["target"])) <= 100
        assert env.reset(one.task).startswith(f"make {one.task.data['target']} from ")
        assert one.task.instruction == env.reset(one.task)
        for action in one.ways[0]:
            step = env.step(action)
            if step.terminated:
                break
        assert isinstance(step, Step)
        assert step.info["success"]


class Nameless(Countdown):
    """Nothing that is reached is a task."""

    def hindsight(self, task: Task) -> Task | None:
        return None


class Faulty(Countdown):
    """Breaks when it is asked what was reached."""

    def hindsight(self, task: Task) -> Task | None:
        raise EnvError("the dealer left")


def test_looking_for_nothing_is_counted_and_an_env_that_fails_there_costs_its_task(
    tmp_path: Path,
) -> None:
    how = GoExplore(budget=80, hindsight=4, restore="replay")
    counted = {}
    for made, explorer in (
        (Nameless, replace(how, hindsight=0)),
        (Nameless, how),
        (Faulty, how),
    ):
        env = made(numbers=4, target_low=20, target_high=100)
        folder = tmp_path / f"{made.__name__}-{explorer.hindsight}"
        folder.mkdir()
        [counted[made, explorer.hindsight]] = found(explorer, env, folder, env.tasks("train")[:1])
    assert counted[Nameless, 4].steps > counted[Nameless, 0].steps
    assert counted[Nameless, 4].failure is None
    assert "the dealer left" in str(counted[Faulty, 4].failure)
    assert counted[Faulty, 4].ways == counted[Nameless, 4].ways


def test_a_task_in_hindsight_is_refused_by_training_on_policy() -> None:
    own = Countdown().tasks("train")[0]
    other = own.in_hindsight("7", "make 7 from 3 4", {"target": 7})
    assert (other.id, other.hindsight_of, other.data["numbers"]) == (
        f"{own.id}~7", own.id, own.data["numbers"],
    )  # fmt: skip
    assert usable([Group(task=own, trajectories=())])[0] == []
    with pytest.raises(TrainingError, match="whose goal was set in hindsight"):
        usable([Group(task=other, trajectories=())])


def test_an_env_that_cannot_name_what_was_reached_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"env Lock has no hindsight\(\)"):
        GoExplore(hindsight=1).check(Lock())


def test_a_run_shows_tasks_in_hindsight_and_trains_on_the_envs_own(tmp_path: Path) -> None:
    env = ("env=countdown", "env.numbers=3", "env.train_tasks=40", "env.dev_tasks=4")
    explore = ("explore=go_explore", "explore.tasks=8", "explore.budget=60", "explore.hindsight=3")
    rest = (
        "sampling.max_tokens=16",
        "rollout.max_turns=4",
        "run.steps=1",
        "eval.baselines=false",
        "env.test_tasks=4",
        "eval.final_tasks=4",
    )
    folder = train(tiny(tmp_path, *env, *explore, *rest, "sft.max_steps=2", "sft.dev_demos=2"))
    told = json.loads((folder / "explore.json").read_text())
    assert told["tasks"] == 8
    assert told["hindsight"] >= 8
    assert told["kept"] == told["solved"] + told["hindsight"]
    shown = read_episodes(folder / "trajectories" / "demos-train.parquet")
    assert sum("~" in one.task_id for one in shown) == told["hindsight"]
    assert all(one.success for one in shown)
    trained = read_episodes(folder / "trajectories" / "train-000001.parquet")
    assert not any("~" in one.task_id for one in trained)
    assert "sft" in [line["name"] for line in read_lines(folder / "evals.jsonl")]
