"""Rewards backed up a tree: by hand, and on trees that runs have grown."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from agentrl.algo.advantages.tree import TreeBackup
from agentrl.algo.spread import spread
from agentrl.core.types import Fork, Group, Score, Scored, Stop, Trajectory
from agentrl.rollout.fold import fold
from support.credit import TASK, scored, turned


def leaf(turns: int, reward: float, parent: Fork | None = None) -> Trajectory:
    made = turned([1] * turns, reward)
    own_rows = tuple(replace(turn, row=k) for k, turn in enumerate(made.turns))
    return replace(made, turns=own_rows, parent=parent)


# 0 --a--b--c  1        4 is another root
#      \--d    0    1 leaves 0 behind a, 2 and 3 leave 0 behind b
TREE = (
    leaf(3, 1.0),
    leaf(2, 0.0, Fork(0, 1)),
    leaf(3, 1.0, Fork(0, 2)),
    leaf(3, 0.0, Fork(0, 2)),
    leaf(1, 0.0),
)


def of(siblings: tuple[Trajectory, ...], *, reweight: bool) -> tuple[object, ...]:
    step = Scored(groups=(Group(task=TASK, trajectories=siblings),))
    return TreeBackup(reweight=reweight)(step).values[0]


def test_parts_are_worth_what_came_of_those_who_went_through_them() -> None:
    root, a, b = 2 / 5, 2 / 4, 2 / 3
    first, second = 2 * (a - root), (b - root) + (b - a)
    plain = of(TREE, reweight=False)
    assert plain[0] == pytest.approx((first, second, (1 - root) + (1 - b)))
    assert plain[1] == pytest.approx((first, (0 - root) + (0 - a)))
    assert plain[2] == plain[0]
    assert plain[3] == pytest.approx((first, second, (0 - root) + (0 - b)))
    assert plain[4] == pytest.approx((2 * (0 - root),))
    weighed = of(TREE, reweight=True)
    assert weighed[0] == pytest.approx(
        (first / math.sqrt(4), second / math.sqrt(3), (1 - root) + (1 - b))
    )


def test_what_failed_is_no_leaf() -> None:
    failed = replace(leaf(3, 9.0, Fork(0, 2)), stop=Stop.ERROR, score=None)
    found = of((*TREE, failed), reweight=True)
    assert found[:5] == of(TREE, reweight=True)
    assert found[5] is None


def test_without_branches_it_is_twice_the_centred_reward() -> None:
    assert TreeBackup()(scored([1.0, 0.0, None, 0.5])).values[0] == ((1.0,), (-1.0,), None, (0.0,))
    assert TreeBackup()(scored([1.0, 1.0])).values[0] == ((0.0,), (0.0,))


def test_shared_turns_get_one_value_however_they_are_trained() -> None:
    group = Group(task=TASK, trajectories=TREE)
    rows = fold(group, index=0)
    out = TreeBackup()(Scored(groups=(group,)))
    for shared in ("once", "each"):
        credit = spread(rows, [group], out, shared=shared)
        values = {
            (group.owner(row.trajectory, k), value)
            for row, tokens in zip(rows, credit, strict=True)
            for k, value, is_trained in zip(row.turn_of, tokens.values, tokens.mask, strict=True)
            if is_trained
        }
        assert len(values) == len({owner for owner, _ in values}) == 7


def test_scores_may_be_anything_finite() -> None:
    huge = tuple(replace(t, score=Score(value=1e300)) for t in TREE)
    assert all(v == 0.0 for own in of(huge, reweight=True) for v in own)  # type: ignore[attr-defined]
