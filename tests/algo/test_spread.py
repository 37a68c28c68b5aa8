"""However an episode branched, each sampled token is trained once, by what its leaves are worth."""

from statistics import fmean
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrl.algo.spread import spread
from agentrl.core.errors import DataError
from agentrl.core.types import (
    AdvantageOut,
    Fork,
    Group,
    Level,
    Score,
    Stop,
    Trajectory,
    Turn,
)
from agentrl.rollout.fold import fold
from support.credit import TASK

Place = tuple[int, int, int]
"""A sampled token: the (trajectory, turn) that owns it, and its position in the turn."""


@st.composite
def trees(draw: st.DrawFn) -> Group:
    """A root and branches off any earlier trajectory; some fail, some rewrite their history."""
    made: list[Trajectory] = []
    for number in range(draw(st.integers(1, 5))):
        turns: list[Turn] = []
        fork = None
        if made:
            parent = draw(st.integers(0, number - 1))
            fork = Fork(parent, draw(st.integers(0, len(made[parent].turns))))
            turns.extend(made[parent].turns[: fork.turn])
        for _ in range(draw(st.integers(0 if turns else 1, 3))):
            ids = tuple(draw(st.lists(st.integers(10, 99), min_size=1, max_size=3)))
            last = turns[-1] if turns else None
            rewrites = draw(st.booleans())
            prompt = (
                (1, len(turns) + 200)
                if rewrites or last is None
                else (
                    *last.prompt_ids,
                    *last.action_ids,
                    3,
                )
            )
            row = 0 if last is None else last.row + rewrites
            zeros = (0.0,) * len(ids)
            turns.append(Turn(prompt_ids=prompt, action_ids=ids, sampler_logprobs=zeros, row=row))
        has_failed = draw(st.booleans()) and draw(st.booleans())
        made.append(
            Trajectory(
                task=TASK,
                turns=tuple(turns),
                stop=Stop.ERROR if has_failed else Stop.DONE,
                score=None if has_failed else Score(value=0.0),
                parent=fork,
            )
        )
    return Group(task=TASK, trajectories=tuple(made))


def trained(group: Group, shared: Literal["once", "each"]) -> list[tuple[Place, int, float]]:
    """Every trained token: its place, the trajectory whose row trains it, its advantage."""
    values = tuple(
        float(i + 1) ** 2 if t.is_scored else None for i, t in enumerate(group.trajectories)
    )
    rows = fold(group, index=0)
    out = AdvantageOut(values=(values,), level=Level.TRAJECTORY)
    found = []
    position: dict[tuple[int, int], int] = {}
    for row, credit in zip(rows, spread(rows, [group], out, shared=shared), strict=True):
        for turn, is_trained, value in zip(row.turn_of, credit.mask, credit.values, strict=True):
            if turn < 0:
                assert (is_trained, value) == (False, 0.0)
                continue
            a = position.get((row.trajectory, turn), 0)
            position[row.trajectory, turn] = a + 1
            if is_trained:
                found.append(((*group.owner(row.trajectory, turn), a), row.trajectory, value))
            else:
                assert value == 0.0
    return found


def leaves(group: Group) -> dict[Place, list[int]]:
    """The scored trajectories through each sampled token."""
    found: dict[Place, list[int]] = {}
    for i in group.scored:
        for k, turn in enumerate(group.trajectories[i].turns):
            for a in range(len(turn.action_ids)):
                found.setdefault((*group.owner(i, k), a), []).append(i)
    return found


@given(trees())
def test_shared_once_trains_each_token_once_with_the_mean_of_its_leaves(group: Group) -> None:
    through = leaves(group)
    found = trained(group, "once")
    assert sorted(place for place, _, _ in found) == sorted(through)
    for place, home, value in found:
        assert home == through[place][0]
        assert value == pytest.approx(fmean((i + 1) ** 2 for i in through[place]))


@given(trees())
def test_shared_each_trains_it_in_every_leaf_with_that_leafs_own_value(group: Group) -> None:
    found = trained(group, "each")
    assert sorted((place, home) for place, home, _ in found) == sorted(
        (place, i) for place, through in leaves(group).items() for i in through
    )
    assert all(value == (home + 1) ** 2 for _, home, value in found)


@pytest.mark.parametrize(
    ("level", "value", "message"),
    [
        (Level.TRAJECTORY, None, "gave trajectory 0 of group 0 no advantage although it is scored"),
        (Level.TRAJECTORY, (1.0,), "expected one number for trajectory 0"),
        (Level.TURN, 1.0, "expected a list for trajectory 0 of group 0 at turn level"),
        (Level.TOKEN, (1.0,), "expected 2 token values for trajectory 0 of group 0, got 1"),
    ],
)
def test_values_of_another_level_are_refused(
    level: Level, value: float | tuple[float, ...] | None, message: str
) -> None:
    turn = Turn(prompt_ids=(1,), action_ids=(5, 6), sampler_logprobs=(0.0, 0.0))
    one = Trajectory(task=TASK, turns=(turn,), stop=Stop.DONE, score=Score(value=0.0))
    group = Group(task=TASK, trajectories=(one,))
    out = AdvantageOut(values=((value,),), level=level)
    with pytest.raises(DataError, match=message):
        spread(fold(group, index=0), [group], out)
