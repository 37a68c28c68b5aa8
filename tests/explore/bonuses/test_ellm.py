"""Suggested goals pay once an episode, if what happened is what was suggested."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from agentrl.core.errors import ConfigError
from agentrl.core.types import Trajectory
from agentrl.explore.bonuses.ellm import Suggested
from support.walks import walk, walks


def bonus(tmp_path: Path, table: object) -> Suggested:
    path = tmp_path / "goals.json"
    path.write_text(json.dumps(table))
    return Suggested(table=path)


def episode(*actions: str, heard: Sequence[str] | None = None, invalid: bool = False) -> Trajectory:
    told = heard or [f"step {k}" for k in range(len(actions))]
    found = walk("s" * len(actions), heard=told, opening="a forest")
    turns = zip(found.turns, actions, strict=True)
    return replace(found, turns=tuple(replace(t, action=a, invalid=invalid) for t, a in turns))


GOALS = {"": ["chop tree", "eat plant"]}


def test_a_goal_pays_once_an_episode(tmp_path: Path) -> None:
    part = bonus(tmp_path, GOALS)
    again = episode("chop tree", "chop tree", "look", "eat plant")
    assert part.rate([walks(episodes=[again, again])]) == [[[1.0, 0.0, 0.0, 1.0]] * 2]


def test_what_failed_or_changed_nothing_pays_nothing(tmp_path: Path) -> None:
    part = bonus(tmp_path, GOALS)
    refused = episode("chop tree", invalid=True)
    idle = episode("chop tree", heard=["a forest"])
    assert part.rate([walks(episodes=[refused, idle])]) == [[[0.0], [0.0]]]


def test_without_suggestions_nothing_pays(tmp_path: Path) -> None:
    assert bonus(tmp_path, {}).rate([walks(episodes=[episode("chop tree")])]) == [[[0.0]]]


def test_new_lines_of_the_observation_are_what_happened(tmp_path: Path) -> None:
    part = bonus(tmp_path, {"": ["you carry a key"]})
    seen = episode("take", "wait", heard=["a forest\nyou carry a key", "a forest\nyou carry a key"])
    assert part.rate([walks(episodes=[seen])]) == [[[1.0, 0.0]]]


def test_only_what_was_suggested_before_the_action_counts(tmp_path: Path) -> None:
    part = bonus(tmp_path, {"a river": ["swim"]})
    late = episode("swim", "swim", heard=["a river", "wet"])
    assert part.rate([walks(episodes=[late])]) == [[[0.0, 1.0]]]


@pytest.mark.parametrize("table", [[1], {"a": "b"}, {"a": [1]}])
def test_a_file_that_is_no_table_is_refused(tmp_path: Path, table: object) -> None:
    with pytest.raises(ConfigError, match=r"table: expected .* to hold an object"):
        bonus(tmp_path, table)
    with pytest.raises(ConfigError, match=r"table: .* cannot be read"):
        Suggested(table=tmp_path / "none.json")
