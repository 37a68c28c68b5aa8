"""Groups that were written to disk are the groups that were played."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path

import pytest

from agentrl.core.errors import DataError
from agentrl.core.types import (
    Failure,
    Finish,
    Forced,
    Fork,
    Group,
    Image,
    Score,
    Spot,
    Start,
    Stop,
    Task,
    Trajectory,
    Turn,
)
from agentrl.rollout.record import read_groups, write_groups

PICTURE = Image(b"\x89PNG\x00\xff")
TURN = Turn(
    prompt_ids=(1, 2),
    action_ids=(3, 4, 5),
    sampler_logprobs=(-0.1, -1e-17, -3.3333333333333335),
    versions=((2, 1), (3, 2)),
    row=1,
    reward=0.1 + 0.2,
    score=None,
    state_key="k",
    held=(True, False, None),
    images=(PICTURE.hash,),
    action=["a", "b"],
    invalid=True,
    finish=Finish.LENGTH,
    forced=Forced(1, (7, 8)),
    spots=(Spot(1, 2), Spot(1000, 0, is_end=True)),
)
TASK = Task(id="t", seed=5, instruction="go", answer=None, data={"n": [1, {"x": None}], "f": 0.1})
WHOLE = Trajectory(
    task=TASK,
    turns=(TURN, Turn(prompt_ids=(1,), action_ids=(2,), sampler_logprobs=(-0.5,))),
    stop=Stop.MAX_TURNS,
    start=Start(cell="c", actions=("x", ["y", "z"])),
    parent=Fork(0, 1),
    score=Score(value=0.3, turns=(0.1, 0.2), parts={"exact": 1.0}),
    success=False,
    seconds=1.25,
    env_seconds=0.5,
    metrics={"m": 2.0},
    pixels={PICTURE.hash: PICTURE},
    goals=("a", "b", "c"),
    held=(False, False, None),
    budget=512,
    progress=((0, 0.25), (2, 1 / 3)),
)
FAILED = Trajectory(
    task=TASK, turns=(), stop=Stop.ERROR, failure=Failure(where="engine", error="gone")
)
GROUP = Group(
    task=TASK,
    start=Start(cell="c", actions=("x", ["y", "z"])),
    trajectories=(WHOLE, FAILED, Trajectory(task=TASK, turns=(), stop=Stop.DONE)),
)


def test_a_group_comes_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "new" / "groups.json.gz"
    write_groups(path, [GROUP, GROUP])
    assert read_groups(path) == [GROUP, GROUP]
    assert [p.name for p in path.parent.iterdir()] == ["groups.json.gz"]


def test_a_greedy_episode_comes_back_with_its_group(tmp_path: Path) -> None:
    group = replace(GROUP, greedy=WHOLE)
    write_groups(tmp_path / "groups", [group])
    assert read_groups(tmp_path / "groups") == [group]


def test_the_same_groups_give_the_same_bytes(tmp_path: Path) -> None:
    for name in "ab":
        write_groups(tmp_path / name, [GROUP])
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("damage", ["cut", "schema", "field", "text"])
def test_a_file_that_is_not_whole_is_refused(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "groups.json.gz"
    write_groups(path, [GROUP])
    data = json.loads(gzip.decompress(path.read_bytes()))
    if damage == "schema":
        data["schema"] = 99
    elif damage == "field":
        del data["groups"][0]["trajectories"][0]["stop"]
    whole = gzip.compress(json.dumps(data).encode())
    path.write_bytes({"cut": whole[: len(whole) // 2], "text": b"nothing"}.get(damage, whole))
    with pytest.raises(DataError, match=r"groups\.json\.gz: expected groups that a run recorded"):
        read_groups(path)
