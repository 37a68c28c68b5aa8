"""Whole runs whose episodes begin in cells: context alone, and success only from the start."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from agentrl.core.errors import ConfigError
from agentrl.track.trajectories import EpisodeRecord, read_episodes
from agentrl.train.loop import train
from support.envs import EchoEnv
from support.play import InCell, collect, right, shown, words_of, worker
from support.same import differences
from support.stopping import stopped, stopping_sink
from support.whole_runs import column, tiny, training_envs

__all__ = ["stopping_sink", "training_envs"]
pytestmark = pytest.mark.usefixtures("training_envs")
EXPLORED = (
    *("env=echo", "env.length=3", "run.steps=3", "eval.baselines=false", "sft.source=random"),
    *("sft.max_steps=2", "sft.dev_demos=2", "explore=go_explore", "explore.tasks=108"),
    *("explore.budget=400", "explore.steps=3"),
)
KEPT = ("checkpoint.every=1", "checkpoint.keep=9", "eval.every=2")


def episodes(folder: Path, name: str) -> Sequence[EpisodeRecord]:
    return read_episodes(folder / "trajectories" / f"{name}.parquet")


def test_the_way_is_shown_as_if_the_policy_had_gone_it_and_is_not_trained() -> None:
    env = EchoEnv(length=3)
    task = env.tasks("train")[0]
    [word, *_] = words_of(task)
    [whole] = collect(worker(env), {-1: right(task)}, [task], group_size=1)
    by = worker(env)
    by.starts = InCell(actions=(word,))
    [group] = collect(by, {-1: right(task)[1:]}, [task], group_size=1)
    first, *_ = group.trajectories[0].turns
    assert first.prompt_ids == whole.trajectories[0].turns[1].prompt_ids
    assert first.prompt_ids != shown(f"say {words_of(task)[1]}")
    assert [t.action for t in group.trajectories[0].turns] == words_of(task)[1:]


def test_evaluations_begin_at_the_start_and_training_does_not(tmp_path: Path) -> None:
    folder = train(tiny(tmp_path, *EXPLORED, "start={name: backward, whole: 0}"))
    assert column(folder, "start/away") == [1.0] * 3
    assert column(folder, "rollout/success") == [None] * 3
    assert column(folder, "start/back")[0] in (1.0, 2.0)
    assert all(success is not None for success in column(folder, "start/success"))
    lengths = {one.n_turns for one in episodes(folder, "eval-final")}
    assert max(lengths) >= 3
    assert (folder / "explore.json").exists()


def test_the_steps_of_the_way_are_counted(tmp_path: Path) -> None:
    folder = train(tiny(tmp_path, *EXPLORED, "start={name: backward, whole: 0}"))
    counts = [float(str(n)) for n in column(folder, "run/env_steps")]
    turns = [8 * float(str(n)) for n in column(folder, "rollout/turns")]
    led = [8 * (3 - float(str(back))) for back in column(folder, "start/back")]
    assert led[1] > 0
    assert counts[1] - counts[0] == turns[1] + led[0]


def test_a_resumed_run_begins_where_it_would_have(tmp_path: Path) -> None:
    start = ("start={name: archive, anneal: 1.0}",)
    straight = train(tiny(tmp_path / "a", *EXPLORED, *KEPT, *start))
    config = tiny(tmp_path / "b", *EXPLORED, *KEPT, *start)
    stopped(config, 2)
    assert differences(straight, train(config, "auto")) == []
    assert column(straight, "start/share") != [0.5] * 3


def test_the_archive_of_another_run_will_do(tmp_path: Path) -> None:
    first = train(tiny(tmp_path / "a", *EXPLORED, "start=archive"))
    start = f"start={{name: archive, archive: {first}/archive.sqlite}}"
    bare = [one for one in EXPLORED if not one.startswith("explore")]
    second = train(tiny(tmp_path / "b", *bare, start))
    assert not (second / "archive.sqlite").exists()
    assert column(second, "start/away") == column(first, "start/away")


def test_a_start_without_an_archive_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="start: needs an archive: set explore=go_explore"):
        tiny(tmp_path, "env=echo", "start=backward")
