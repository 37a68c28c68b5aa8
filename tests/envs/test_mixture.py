"""Several environments as one, by weight."""

from __future__ import annotations

import pickle
from collections import Counter
from pathlib import Path

import pytest

from agentrl.core.config import Config
from agentrl.core.errors import ConfigError
from agentrl.core.loading import load, to_yaml
from agentrl.core.protocols import abilities
from agentrl.core.types import Task
from agentrl.envs.mixture import Mixed, Mixture
from agentrl.track.jsonl import read_metrics
from agentrl.track.trajectories import read_episodes
from agentrl.train.loop import train
from support.whole_runs import tiny, training_envs

__all__ = ["training_envs"]
PARTS = "env=[{name: chatter, weight: 3}, {name: echo, length: 2}]"


def mixed(sizes: list[int], weights: list[float], *, is_repeating: bool) -> list[Task]:
    names = [f"p{i}" for i in range(len(sizes))]
    tasks = [[Task(id=f"t{n}", seed=n) for n in range(size)] for size in sizes]
    return list(Mixed(names=names, tasks=tasks, weights=weights, is_repeating=is_repeating))


def test_every_stretch_of_tasks_has_the_shares_of_the_weights() -> None:
    tasks = mixed([500, 500], [3, 1], is_repeating=False)
    for n in range(1, len(tasks)):
        count = sum(task.id.startswith("p0:") for task in tasks[:n])
        assert abs(count - 0.75 * n) <= 1


def test_in_train_a_small_part_comes_again_and_elsewhere_it_ends_the_split() -> None:
    again = mixed([10, 100], [1, 1], is_repeating=True)
    assert len(again) == 200
    assert len({task.id for task in again}) == 200
    assert Counter(task.id.partition(":")[0] for task in again) == {"p0": 100, "p1": 100}
    assert again[40].id == "p0:t0#3"
    once = mixed([10, 100], [1, 1], is_repeating=False)
    assert len(once) == 20
    assert not any("#" in task.id for task in once)


def test_a_list_is_a_mixture_and_a_written_config_gives_it_again() -> None:
    config = load(
        Config,
        {"env": [{"name": "babyai", "level": "GoTo", "weight": 2}, "babyai"]},
    )
    assert isinstance(config.env, Mixture)
    assert [part.weight for part in config.env.parts] == [2.0, 1.0]
    path_text = to_yaml(config)
    assert "mixture" in path_text
    [one, other] = config.env.tasks("dev")[:2]
    assert (one.id.partition(":")[0], other.id.partition(":")[0]) == ("babyai_1", "babyai_2")


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        ([{"name": "babyai", "weight": 0}], r"env\.parts\.0\.weight"),
        ([{"name": "babyai", "levl": "x"}], "did you mean 'level'"),
        ([], "parts"),
    ],
)
def test_what_is_no_mixture_is_refused(raw: object, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        load(Config, {"env": raw})


def test_it_can_what_all_of_its_parts_can_and_travels_to_processes() -> None:
    env = Mixture()
    assert {"snapshot", "restore", "expert_action", "legal_actions"} <= abilities(env)
    assert "tools" not in abilities(env)
    copy = pickle.loads(pickle.dumps(env))
    assert copy.tasks("test")[3] == env.tasks("test")[3]


def test_a_run_trains_a_mixture_and_tells_of_each_part(tmp_path: Path, training_envs: None) -> None:
    folder = train(tiny(tmp_path, PARTS, "rollout.tasks_per_step=8", "eval.every=0"))
    lines = read_metrics(folder)
    for name in ("chatter", "echo"):
        assert all(f"env/success_{name}" in line for line in lines)
    played = Counter(
        episode.task_id.partition(":")[0]
        for step in (1, 2)
        for episode in read_episodes(folder / "trajectories" / f"train-{step:06d}.parquet")
    )
    assert set(played) == {"chatter", "echo"}
    assert played["chatter"] > played["echo"]
