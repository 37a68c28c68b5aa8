"""Branches by snapshot: restored where the parent stood, though a replay would not lead there."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from agentrl.core.errors import ConfigError
from agentrl.core.types import Action, Fork, Group, Step, Stop, Trajectory
from agentrl.rollout.record import read_groups
from agentrl.rollout.strategies.snapshot_tree import SnapshotTree, drawn
from agentrl.train.loop import train
from agentrl.train.opening import check_needs
from support import EchoEnv
from support.credit import turned
from support.play import collect, says, table, worker
from support.whole_runs import column, tiny, training_envs

__all__ = ["training_envs"]
BARE = ("eval.every=0", "eval.final_tasks=0", "eval.baselines=false", "rollout.record=true")


@dataclass(kw_only=True)
class Chancy(EchoEnv):
    """Says another number after every step of its life, which a snapshot keeps."""

    steps: ClassVar[int] = 0
    last: int = 0

    def step(self, action: Action) -> Step:
        Chancy.steps += 1
        self.last = Chancy.steps
        answer = super().step(action)
        return replace(answer, observation=f"{answer.observation} {self.last}")

    def snapshot(self) -> object:
        return super().snapshot(), self.last

    def restore(self, snapshot: Any) -> None:
        inner, self.last = snapshot
        super().restore(inner)


@dataclass(kw_only=True)
class Forgetful(EchoEnv):
    """Cannot be saved."""

    snapshot = None  # type: ignore[assignment]


def tree(env: EchoEnv, *, group_size: int = 6, roots: int = 2) -> Group:
    task = env.tasks("train")[-1]
    script = {number: [says("ant")] * 8 for number in range(group_size)}
    by = worker(env, at=table(), strategy=SnapshotTree(roots=roots))

    [group] = collect(by, script, [task], group_size=group_size, more=lambda _: [task])
    return group


def test_an_env_that_chance_decides_is_branched_and_stepped_once() -> None:
    Chancy.steps = 0
    group = tree(Chancy(length=4))
    assert len(group.trajectories) == 6
    roots, branches = group.trajectories[:2], group.trajectories[2:]
    assert all(t.parent is None for t in roots)
    own = sum(len(t.turns) for t in roots)
    for branch in branches:
        assert branch.failure is None
        assert branch.parent is not None
        parent, turn = branch.parent
        assert branch.turns[:turn] == roots[parent].turns[:turn]
        assert branch.turns[turn].prompt_ids == roots[parent].turns[turn].prompt_ids
        own += len(branch.turns) - turn
    assert Chancy.steps == own, "nothing is stepped twice"
    assert len({branch.parent for branch in branches}) == 4, "each leaves at another place"


def test_counts_and_metrics_of_a_branch_are_those_of_its_parent_s_turns() -> None:
    group = tree(EchoEnv(length=3))
    for branch in group.trajectories[2:]:
        assert branch.metrics == {"said": 3.0}
        assert branch.env_return == pytest.approx(
            sum(turn.reward for turn in group.trajectories[0].turns)
        )


def test_branches_are_drawn_without_repeating_while_there_are_places() -> None:
    roots = [turned([1, 1, 1], 0.0), turned([1, 1], 0.0), turned([1], 1.0)]
    assert Counter(drawn(roots, 6)) == dict.fromkeys([Fork(0, 1), Fork(0, 2), Fork(1, 1)], 2)
    assert drawn([turned([1], 0.0)], 3) == []
    failed: Trajectory = replace(roots[0], stop=Stop.ERROR, score=None)
    assert set(drawn([failed, roots[1]], 2)) == {Fork(1, 1)}
    assert drawn(roots, 4) == drawn(roots, 4)


def test_where_no_root_has_a_second_turn_the_group_is_filled_with_roots() -> None:
    group = tree(EchoEnv(length=1))
    assert [t.parent for t in group.trajectories] == [None] * 6


def recorded(folder: Path, *settings: str) -> tuple[Path, list[Group]]:
    run = train(tiny(folder, *BARE, "env={name: echo, length: 3}", *settings))
    return run, [g for path in sorted((run / "schedule").iterdir()) for g in read_groups(path)]


@pytest.mark.usefixtures("training_envs")
def test_a_run_trains_on_its_trees_and_repeats(tmp_path: Path) -> None:
    settings = ("strategy=snapshot_tree", "advantage=tree", "rollout.max_turns=6")
    run, groups = recorded(tmp_path, *settings)
    assert any(t.parent is not None for group in groups for t in group.trajectories)
    again, _ = recorded(tmp_path / "again", *settings)
    assert column(again, "loss/grad_norm") == column(run, "loss/grad_norm")


@pytest.mark.usefixtures("training_envs")
def test_an_env_without_snapshots_and_too_many_roots_are_refused(tmp_path: Path) -> None:
    config = replace(tiny(tmp_path, *BARE, "strategy=snapshot_tree"), env=Forgetful())
    with pytest.raises(ConfigError, match=r"strategy: env Forgetful has no snapshot\(\), by which"):
        check_needs(config)
    with pytest.raises(ConfigError, match=r"strategy\.roots: must be at most rollout.group_size=4"):
        recorded(tmp_path, "strategy={name: snapshot_tree, roots: 5}")
