"""Suites: the same tasks for every checkpoint, kept by weights and task, compared in pairs."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from random import Random

import pytest

from agentrl.cli import main
from agentrl.core.config import load_alone, load_config
from agentrl.core.errors import ConfigError, DataError
from agentrl.core.types import Group
from agentrl.envs.reasoning_gym import _generator
from agentrl.evaluate import suite
from agentrl.evaluate.compare import bootstrap, compare, mcnemar, sign_flips
from agentrl.evaluate.suite import (
    HEADER,
    SUITES,
    Entry,
    Kept,
    Played,
    Row,
    load_suite,
    play_suite,
)
from agentrl.text.actions.qwen_xml import QwenXmlCalls
from support.models import save_model

ENTRY = "{{name: lake, env: {{name: gymnasium, id: FrozenLake-v1}}, tasks: {tasks}, {more}}}"


def suite_file(folder: Path, *, tasks: int = 4, more: str = "max_turns: 3, max_tokens: 3") -> Path:
    path = folder / "mine.yaml"
    path.write_text(f"entries:\n  - {ENTRY.format(tasks=tasks, more=more)}\n")
    return path


def played(
    folder: Path, overrides: Sequence[str] = ("renderer=plain",), **changes: object
) -> list[Row]:
    mine = load_suite(str(suite_file(folder, **changes)))  # type: ignore[arg-type]
    model = folder / "model"
    if not model.exists():
        save_model(model, "qwen3")
    return play_suite(model, mine, out=folder / "out", overrides=overrides)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The tasks that are played, in the order in which their episodes end."""
    tasks: list[str] = []
    add = Kept.add

    def noted(self: Kept, group: Group) -> None:
        if len(tasks) == BREAK[0]:
            raise RuntimeError("killed")
        tasks.append(group.task.id)
        add(self, group)

    monkeypatch.setattr(Kept, "add", noted)
    return tasks


BREAK = [-1]


def test_every_seat_plays_every_task(tmp_path: Path) -> None:
    rows = played(tmp_path, more="samples: 2, max_turns: 3, max_tokens: 3")
    assert [row.seat for row in rows] == ["random", "expert", "greedy", "sampled"]
    assert [len(row.episodes) for row in rows] == [4, 4, 4, 8]
    assert len({one.task for one in rows[0].episodes}) == 4
    again = [
        [one.task for one in row.episodes[:: 2 if row.seat == "sampled" else 1]] for row in rows
    ]
    assert again == [again[0]] * 4, "all seats the same tasks"


def test_what_was_played_is_not_played_again(tmp_path: Path, counted: list[str]) -> None:
    first = played(tmp_path)
    assert len(counted) == 16
    assert played(tmp_path) == first
    assert len(counted) == 16
    more = played(tmp_path, tasks=6)
    assert len(counted) == 16 + 24, "an entry that was changed is another one"
    assert [len(row.episodes) for row in more] == [6] * 4


def test_a_suite_that_was_killed_goes_on_where_it_was(tmp_path: Path, counted: list[str]) -> None:
    BREAK[0] = 10
    try:
        with pytest.raises(ExceptionGroup):
            played(tmp_path)
    finally:
        BREAK[0] = -1
    assert len(counted) == 10
    [cut] = (tmp_path / "out").rglob("*.greedy.jsonl")
    with cut.open("a") as file:
        file.write('{"task": "half a li')
    rows = played(tmp_path)
    assert [len(row.episodes) for row in rows] == [4] * 4
    assert len(counted) == 16


def test_other_weights_are_played_anew(tmp_path: Path, counted: list[str]) -> None:
    played(tmp_path)
    weights = tmp_path / "model" / "config.json"
    weights.write_text(weights.read_text() + "\n")
    played(tmp_path)
    assert len(counted) == 16 + 8, "the floor and the ceiling are nobody's weights"


def without_bfcl(folder: Path, monkeypatch: pytest.MonkeyPatch, *, alone: bool = False) -> Path:
    """A suite with an entry whose data is nowhere, behind another one unless `alone`."""
    monkeypatch.setenv("BFCL_EVAL", str(folder / "nowhere"))
    path = suite_file(folder)
    kept = "entries:\n" if alone else path.read_text()
    path.write_text(f"{kept}  - {{name: calls, env: bfcl, tasks: 2}}\n")
    return path


def test_an_entry_whose_data_is_missing_is_told_in_the_table_and_the_others_are_played(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = without_bfcl(tmp_path, monkeypatch)
    save_model(tmp_path / "model", "qwen3")
    command = [str(tmp_path / "model"), "--suite", str(path), "renderer=plain"]
    assert main(["eval", *command]) == 0
    said = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("| lake |") for line in said) == 4
    [told] = [line for line in said if line.startswith("| calls |")]
    assert told.startswith(f"| calls | not played | env.wheel: bfcl-eval is not in {tmp_path}")
    assert "pip download --no-deps bfcl-eval" in told
    assert told.count("|") == HEADER.splitlines()[1].count("|")
    kept = tmp_path / "model" / "suite-mine"
    assert told in (kept / "table.md").read_text()
    assert json.loads((kept / "table.json").read_text())[-1]["missing"].startswith("env.wheel")
    assert main(["compare", command[0], *command]) == 0
    assert "calls: not played: env.wheel" in capsys.readouterr().out


def test_a_suite_of_which_nothing_can_be_played_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = load_suite(str(without_bfcl(tmp_path, monkeypatch, alone=True)))
    save_model(tmp_path / "model", "qwen3")
    with pytest.raises(ConfigError, match=r"calls: env\.wheel: bfcl-eval is not in"):
        play_suite(tmp_path / "model", one, out=tmp_path / "out")


def test_a_missing_package_is_told_like_missing_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = suite_file(tmp_path)
    path.write_text(f"{path.read_text()}  - {{name: sums, env: reasoning_gym, tasks: 2}}\n")
    monkeypatch.setitem(sys.modules, "reasoning_gym.factory", None)
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    _generator.cache_clear()
    save_model(tmp_path / "model", "qwen3")
    rows = play_suite(
        tmp_path / "model",
        load_suite(str(path)),
        out=tmp_path / "out",
        overrides=["renderer=plain"],
        seats=("greedy",),
    )
    assert [(row.entry, row.seat) for row in rows] == [("lake", "greedy"), ("sums", "")]
    assert "pip install 'agentrl[reasoning]'" in rows[1].missing


def test_what_was_played_under_other_overrides_is_played_anew(
    tmp_path: Path, counted: list[str]
) -> None:
    played(tmp_path)
    played(tmp_path, overrides=["renderer=plain", "sampling.temperature=0.5"])
    assert len(counted) == 32
    played(tmp_path)
    assert len(counted) == 32


def test_a_model_whose_context_is_too_short_is_told_and_the_ceiling_is_not_bound_by_it(
    tmp_path: Path,
) -> None:
    said: list[str] = []
    path = suite_file(tmp_path)
    save_model(tmp_path / "model", "qwen3")
    rows = play_suite(
        tmp_path / "model",
        load_suite(str(path)),
        out=tmp_path / "out",
        overrides=["renderer=plain", "rollout.max_context=5", "sampling.max_tokens=3"],
        seats=("expert", "greedy"),
        say=said.append,
    )
    assert [row.cramped for row in rows] == [0, 4]
    assert rows[0].counted[0].turns > 1
    assert rows[1].markdown().endswith("| 0 | 4 |")
    assert said[-1].startswith("lake, greedy: 4 of 4 episodes ended where the model's context")


@pytest.mark.parametrize(
    ("asked", "used"),
    [((), [type(None)] * 2), (("actions=qwen_xml",), [type(None), QwenXmlCalls])],
)
def test_a_format_that_was_asked_for_is_that_of_tool_calls_only(
    tmp_path: Path, asked: tuple[str, ...], used: list[type]
) -> None:
    base = load_config(None, ["env=tools", *asked])
    entries = [Entry(name=name, env=load_alone(name).env) for name in ("countdown", "tools")]
    keeps = bool(asked)
    configs = [suite._config(base, tmp_path, entry, keeps_actions=keeps) for entry in entries]
    assert [type(config.actions) for config in configs] == used


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("entries: []", "expected names"),
        ("entries:\n  - {name: a, env: babyai, split: train}", "split"),
        ("entries:\n  - {name: a, env: babyai}\n  - {name: a, env: countdown}", "twice: a"),
        ("entries:\n  - {name: a, env: babyai, task: 3}", "did you mean 'tasks'"),
    ],
)
def test_a_suite_that_measures_nothing_is_refused(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=told):
        load_suite(str(path))


def test_an_unknown_suite_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'text-small'"):
        load_suite("text-smal")


@pytest.mark.parametrize("name", sorted(path.stem for path in SUITES.glob("*.yaml")))
def test_every_suite_has_the_tasks_that_it_asks_for(name: str) -> None:
    for entry in load_suite(name).entries:
        missing = suite._missing(entry)  # raises where there are too few
        assert missing or len(entry.env.tasks(entry.split)) >= entry.tasks, entry.name


# --- in pairs -------------------------------------------------------------------------------------


def row(successes: list[list[bool | None]], seat: str = "greedy") -> Row:
    episodes = [
        Played(
            task=f"t{task}",
            sample=sample,
            success=success,
            reward=0.0,
            turns=1,
            tokens=1,
            stop="done",
        )
        for task, of_task in enumerate(successes)
        for sample, success in enumerate(of_task)
    ]
    return Row(entry="e", seat=seat, episodes=tuple(episodes))


def test_mcnemars_test_by_hand() -> None:
    """Six tasks only one of the two solved, one of them A: 2 (C(6,0) + C(6,1)) / 2^6."""
    a = row([[success] for success in (True, False, False, False, False, False, True, False)])
    b = row([[success] for success in (False, True, True, True, True, True, True, False)])
    [found] = compare([a], [b])
    assert found.p == pytest.approx(14 / 64)
    assert (found.a, found.b, found.tasks) == (0.25, 0.75, 8)
    assert found.low < 0.5 < found.high


def test_equal_checkpoints_do_not_differ() -> None:
    same = row([[True], [False], [True]])
    [found] = compare([same], [same])
    assert (found.p, found.low, found.high) == (1.0, 0.0, 0.0)


def test_a_task_that_one_of_them_failed_is_left_out() -> None:
    [found] = compare([row([[True], [None]])], [row([[False], [True]])])
    assert found.tasks == 1
    with pytest.raises(DataError, match="no task in common"):
        compare([row([[None]])], [row([[True]])])


def test_floors_are_no_ones() -> None:
    assert compare([row([[True]], "random")], [row([[True]], "random")]) == []


def test_under_no_difference_p_is_as_small_as_it_says() -> None:
    """Of 300 pairs of equal policies about a twentieth has p below 0.05, in both tests."""
    rng = Random(3)
    small = [0, 0]
    for seed in range(300):
        gaps = [float((rng.random() < 0.5) - (rng.random() < 0.5)) for _ in range(60)]
        small[0] += mcnemar(gaps) < 0.05
        finer = [gap + rng.gauss(0, 0.3) for gap in gaps[:20]]
        small[1] += quick(finer, seed) < 0.05
    assert small[0] <= 22, "exact, so never more often"
    assert 5 <= small[1] <= 28


def quick(gaps: list[float], seed: int) -> float:
    return sign_flips(gaps, seed, resamples=400)


def test_the_bootstrap_covers_the_mean() -> None:
    rng = Random(5)
    inside = 0
    for seed in range(200):
        low, high = bootstrap([rng.gauss(0.2, 1.0) for _ in range(50)], seed, resamples=300)
        inside += low <= 0.2 <= high
    assert 178 <= inside <= 200
    assert math.isclose(*bootstrap([0.5] * 9, 0))
