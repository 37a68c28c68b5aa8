"""Whole runs that explore before they learn: what is found is played again, learned, and told."""

import json
import re
from pathlib import Path

import pytest

from agentrl.core.errors import ConfigError
from agentrl.explore.archive import Archive
from agentrl.track.jsonl import read_lines, read_metrics
from agentrl.track.trajectories import EpisodeRecord, read_episodes
from agentrl.train.loop import train
from support.envs import EchoEnv
from support.whole_runs import timeless, tiny, training_envs

__all__ = ["training_envs"]
pytestmark = pytest.mark.usefixtures("training_envs")
ECHO = ("env=echo", "env.length=3", "run.steps=1", "eval.baselines=false")
BARE = ("eval.every=0", "eval.final_tasks=0", "eval.baselines=false")
LEARN = ("sft.max_steps=2", "sft.dev_demos=2")


def shown(folder: Path) -> list[EpisodeRecord]:
    """All demonstrations of a run."""
    names = ("demos-train", "demos-dev")
    paths = [folder / "trajectories" / f"{name}.parquet" for name in names]
    return [one for path in paths for one in read_episodes(path)]


def test_what_was_found_is_learned_without_an_expert(tmp_path: Path) -> None:
    explore = ("explore=go_explore", "explore.tasks=8", "explore.budget=400", "explore.steps=3")
    folder = train(tiny(tmp_path, *ECHO, *explore, *LEARN))
    told = json.loads((folder / "explore.json").read_text())
    assert told["tasks"] == 8
    assert told["kept"] == told["solved"] >= 4
    assert told["env_steps"] > sum(told["lengths"])
    assert len(told["first"]) == 8
    with Archive(folder / "archive.sqlite") as archive:
        assert len(archive.tasks()) == 8
        assert archive.counts()["cells"] == told["cells"]
    assert "sft" in [line["name"] for line in read_lines(folder / "evals.jsonl")]
    demos = shown(folder)
    assert len(demos) == told["kept"]
    assert all(one.success for one in demos)
    assert sorted(one.n_turns for one in demos) == sorted(told["lengths"])


def test_a_run_ends_when_its_env_steps_are_spent(tmp_path: Path) -> None:
    explore = ("explore=go_explore", "explore.tasks=8", "explore.budget=400", "explore.steps=3")
    more = ("run.steps=90", "run.env_steps=1500", "eval.every=0", "eval.final_tasks=2")
    folder = train(tiny(tmp_path, *ECHO, *explore, *LEARN, *more))
    told = json.loads((folder / "explore.json").read_text())
    counts = [int(str(line["run/env_steps"]).removesuffix(".0")) for line in read_metrics(folder)]
    assert told["env_steps"] < counts[0] < 1500 <= counts[-1]
    assert sum(count >= 1500 for count in counts) == 1
    [summary] = json.loads((folder / "summary.json").read_text())
    assert summary["steps"] == len(counts) < 90
    assert summary["env_steps"] == counts[-1]
    assert "final" in [line["name"] for line in read_lines(folder / "evals.jsonl")]


@pytest.mark.parametrize("style", ["chat", "act"])
def test_the_policy_itself_can_be_asked_and_its_answers_are_counted(
    tmp_path: Path, style: str
) -> None:
    explore = ("explore=intelligent_go_explore", "explore.tasks=4", "explore.budget=60")
    asks = ("explore.proposer=policy", f"explore.proposer.style={style}")
    short = ("explore.proposer.max_tokens=4", "explore.history=0", "explore.options=2")
    folder = train(tiny(tmp_path, *ECHO, *explore, *asks, *short, *LEARN))
    told = json.loads((folder / "explore.json").read_text())
    counts: dict[str, float] = told["metrics"]
    assert told["kept"] >= 2
    assert counts["proposer/asked"] > 0
    unanswered = counts.get("proposer/unread", 0) + counts.get("proposer/failed", 0)
    assert 0 < unanswered <= counts["proposer/asked"]


def test_a_random_player_shows_the_form_of_actions(tmp_path: Path) -> None:
    folder = train(tiny(tmp_path, *ECHO, *LEARN, "sft.source=random", "sft.demos=3"))
    demos = shown(folder)
    assert len(demos) == 2 * 3 + 2
    assert not all(one.success for one in demos)


def test_episodes_of_a_random_player_that_failed_are_told_and_not_learned(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = ("sft.source=random", "sft.demos=8", "track=[console, jsonl]")
    folder = train(tiny(tmp_path, "env=bad", "env.after=6", "run.steps=0", *BARE, *LEARN, *source))
    told = re.search(
        r"sft: (\d+) of 16 episodes of a random player failed; ", capsys.readouterr().out
    )
    assert told is not None
    demos = read_episodes(folder / "trajectories" / "demos-train.parquet")
    assert 0 < len(demos) == 16 - int(told[1])
    assert all(one.failure is None for one in demos)


def test_a_run_without_exploring_is_not_changed_by_it(tmp_path: Path) -> None:
    runs = [
        train(tiny(tmp_path / name, *ECHO, *LEARN, *more))
        for name, more in (("a", ()), ("b", ("explore=none", "sft.source=expert")))
    ]
    assert timeless(runs[0]) == timeless(runs[1])
    assert not (runs[1] / "archive.sqlite").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["explore=go_explore", "sft=none"], r"explore: .*set sft.source=explore \(got sft=none\)"),
        (["explore=go_explore", "sft.source=expert"], "set sft.source=explore"),
        (["sft.source=explore"], "sft.source: nothing is explored; set explore=go_explore"),
        (["explore=go_explor"], "did you mean 'go_explore'"),
    ],
)
def test_settings_that_do_not_fit_are_refused(
    tmp_path: Path, settings: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny(tmp_path, *ECHO, *settings)


def test_too_few_ways_are_told_with_what_to_do(tmp_path: Path) -> None:
    explore = ("explore=go_explore", "explore.tasks=2", "explore.budget=2")
    with pytest.raises(ConfigError, match=r"0 of 2 tasks were solved.*raise explore.budget"):
        train(tiny(tmp_path, *ECHO, *explore, *LEARN))


def test_subgoals_of_a_table_are_watched_in_training_and_told(tmp_path: Path) -> None:
    goals = [{"text": "fetch the key", "predicate": "carrying key", "kind": "object"}]
    goals += [{"text": "nowhere", "predicate": "at 0 0", "kind": "position"}]
    line = {"kind": "subgoals", "key": "", "answer": json.dumps(goals)}
    table = tmp_path / "table.jsonl"
    table.write_text(json.dumps({"format": 1}) + "\n" + json.dumps(line) + "\n")
    env = ("env=babyai", "env.level=DoorKey-5x5", "env.cap=12", "env.train_tasks=40", "sft=none")
    few = (
        "env.dev_tasks=4",
        "env.test_tasks=4",
        "rollout.max_turns=12",
        "rollout.on_invalid=pass",
    )
    pays = ("bonus=subgoals", "bonus.proposer=table", f"bonus.proposer.path={table}")
    folder = train(tiny(tmp_path, *env, *few, *pays, *BARE, "run.steps=2", "bonus.horizon=12"))
    [first, second] = read_lines(folder / "metrics.jsonl")
    for metrics in (first, second):
        assert metrics["bonus/goals_named"] == 2.0
        assert metrics["bonus/goals_missing"] == 0.0
        assert metrics["bonus/goals_cell"] == metrics["bonus/goals_judge"] == 0.0
        assert metrics["bonus/goals_paid"] == metrics["bonus/goals_predicate"]


def test_goals_need_an_env_that_can_be_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(EchoEnv, "check", None)
    pays = ("bonus=subgoals", "bonus.proposer=table", "bonus.proposer.path=none.jsonl")
    with pytest.raises(ConfigError, match=r"has no check\(\), by which goals are known"):
        train(tiny(tmp_path, *ECHO, *LEARN, *pays))
