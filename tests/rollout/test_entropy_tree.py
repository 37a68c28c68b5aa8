"""Branches where the policy is unsure: how often, how many, and what they share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from agentrl.core.errors import ConfigError
from agentrl.core.types import Fork, Group, Stop, Task, Trajectory, Turn
from agentrl.rollout.record import read_groups
from agentrl.rollout.strategies.entropy_tree import EntropyTree
from agentrl.train.loop import train
from support.whole_runs import column, tiny, training_envs

__all__ = ["training_envs"]
BARE = ("eval.every=0", "eval.final_tasks=0", "eval.baselines=false", "rollout.record=true")


def turn(surprisals: Sequence[float], first: int = 0) -> Turn:
    return Turn(
        prompt_ids=(1,),
        action_ids=tuple(range(first, first + len(surprisals))),
        sampler_logprobs=tuple(-s for s in surprisals),
    )


def leaf(now: float, before: float, *, first: int = 0) -> Trajectory:
    turns = (turn([before], first), turn([now], first + 1))
    return Trajectory(task=Task(id="t", seed=0), turns=turns, stop=Stop.DONE)


def share(strategy: EntropyTree, now: float, before: float = 1.0, n: int = 4_000) -> float:
    return sum(strategy.is_chosen(leaf(now, before, first=7 * i), 0, 1) for i in range(n)) / n


def test_an_even_policy_is_branched_at_every_second_turn() -> None:
    sigma = math.sqrt(0.25 / 4_000)
    for strategy, now in ((EntropyTree(), 1.0), (EntropyTree(weight=0.0), 9.0)):
        assert abs(share(strategy, now) - 0.5) < 3 * sigma


@pytest.mark.parametrize(("rise", "probability"), [(0.4, 0.58), (-0.4, 0.42), (9.0, 1.0), (-9, 0)])
def test_what_became_unsure_is_branched_at_more_often(rise: float, probability: float) -> None:
    found = share(EntropyTree(ln_vocabulary=1.0), 10.0 + rise, 10.0)
    assert found == pytest.approx(probability, abs=0.025)


def test_only_the_first_tokens_of_a_turn_are_looked_at() -> None:
    strategy = EntropyTree(tokens=2, ln_vocabulary=2.0)
    assert strategy.surprisal(turn([1.0, 3.0, 50.0])) == pytest.approx(2.0)
    assert strategy.surprisal(turn([])) == 0.0


def test_a_leaf_is_not_branched_at_what_it_inherited() -> None:
    always = EntropyTree(rate=1.0, weight=0.0)
    branch = replace(leaf(1.0, 1.0), parent=Fork(0, 1))
    assert not always.is_chosen(branch, 1, 1)
    assert always.is_chosen(replace(branch, parent=None), 1, 1)


def recorded(folder: Path, *settings: str) -> tuple[Path, list[Group]]:
    run = train(tiny(folder, *BARE, "rollout.group_size=6", *settings))
    paths = sorted((run / "schedule").iterdir())
    return run, [group for path in paths for group in read_groups(path)]


@pytest.mark.usefixtures("training_envs")
def test_a_run_trains_on_trees_with_as_many_leaves_as_a_group_has_places(tmp_path: Path) -> None:
    tree = "strategy={name: entropy_tree, roots: 2, rate: 1}"
    run, groups = recorded(tmp_path, tree)
    assert {len(group.trajectories) for group in groups} == {6}
    branches = [(g, t) for g in groups for t in g.trajectories if t.parent is not None]
    assert len(branches) == 2 * len(groups), "each root is branched at its second turn, once"
    for group, branch in branches:
        assert branch.parent is not None
        parent, turn = branch.parent
        assert turn >= 1
        assert branch.failure is None
        assert branch.turns[:turn] == group.trajectories[parent].turns[:turn]
    assert min(float(str(norm)) for norm in column(run, "loss/grad_norm")) >= 0
    again, _ = recorded(tmp_path / "again", tree)
    assert column(again, "loss/grad_norm") == column(run, "loss/grad_norm")


@pytest.mark.usefixtures("training_envs")
def test_without_branches_a_group_is_filled_with_roots(tmp_path: Path) -> None:
    _, groups = recorded(tmp_path, "strategy={name: entropy_tree, rate: 0, weight: 0}")
    assert {len(group.trajectories) for group in groups} == {6}
    assert all(t.parent is None for group in groups for t in group.trajectories)


@pytest.mark.usefixtures("training_envs")
def test_more_roots_than_places_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"strategy\.roots: must be at most rollout.group_size=6"):
        recorded(tmp_path, "strategy={name: entropy_tree, roots: 7}")


@pytest.mark.usefixtures("training_envs")
def test_siblings_are_compared_whole_so_shared_tokens_count_in_each(tmp_path: Path) -> None:
    dpo = ("strategy=entropy_tree", "loss=dpo", "aggregate=seq_mean_token_mean")
    with pytest.raises(ConfigError, match=r"rollout\.shared: .* set rollout\.shared=each"):
        recorded(tmp_path, *dpo)
    _, groups = recorded(tmp_path, *dpo, "rollout.shared=each")
    assert groups
