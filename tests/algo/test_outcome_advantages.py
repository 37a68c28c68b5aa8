"""Estimators of one number per episode beside GRPO and RLOO: their formulas, by hand."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from agentrl.algo.advantages.gdpo import DecoupledNormalised
from agentrl.algo.advantages.gpg import GroupPolicyGradient
from agentrl.algo.advantages.opo import OptimalBaseline
from agentrl.algo.advantages.passk import BestOfGroup
from agentrl.algo.advantages.reinforce_pp import ReinforcePlusPlus
from agentrl.algo.advantages.reinforce_pp_baseline import ReinforceBaseline
from agentrl.core.errors import DataError
from agentrl.core.protocols import Advantage
from agentrl.core.types import Group, Level, Score, Scored, Trajectory
from support.credit import TASK, scored, turned


def of(estimator: Advantage, step: Scored) -> list[list[float]]:
    out = estimator(step)
    assert out.level is Level.TRAJECTORY
    return [[v for v in group if isinstance(v, float)] for group in out.values]


def lengths(tokens: Sequence[int], rewards: Sequence[float]) -> Scored:
    siblings = tuple(turned([n], r) for n, r in zip(tokens, rewards, strict=True))
    return Scored(groups=(Group(task=TASK, trajectories=siblings),))


@pytest.mark.parametrize(
    "estimator",
    [
        OptimalBaseline(),
        BestOfGroup(),
        GroupPolicyGradient(),
        DecoupledNormalised(),
        ReinforceBaseline(),
        ReinforceBaseline(whiten="sequence"),
    ],
)
def test_an_all_equal_step_gives_nothing(estimator: Advantage) -> None:
    assert of(estimator, scored([0.1, 0.1, 0.1], [0.7, 0.7])) == [[0.0] * 3, [0.0] * 2]


def test_the_baseline_of_opo_is_weighed_by_length() -> None:
    step = lengths([10, 30, 20, 40], [1, 0, 0, 1])
    assert of(OptimalBaseline(), step) == [pytest.approx([0.5, -0.5, -0.5, 0.5])]
    step = lengths([10, 30], [1, 0])
    assert of(OptimalBaseline(), step) == [pytest.approx([0.75, -0.25])]


def test_pass_at_k_pays_the_best_for_its_lead() -> None:
    assert of(BestOfGroup(eps=0.0), scored([1, 0, 0.5, 0])) == [
        pytest.approx([0.5 / 0.4787, 0, 0, 0], abs=1e-4)
    ]
    assert of(BestOfGroup(scale=False), scored([1, 0, 0.25])) == [pytest.approx([0.75, 0, 0])]
    assert of(BestOfGroup(), scored([1, 1, 0])) == [[0.0, 0.0, 0.0]]


def test_gpg_scales_up_by_the_share_of_rewards_that_are_paid() -> None:
    step = scored([1, 0, 0, 0], [1, 1, 0, 0])
    assert of(GroupPolicyGradient(), step) == [
        pytest.approx([8 / 3 * a for a in (0.75, -0.25, -0.25, -0.25)]),
        pytest.approx([8 / 3 * a for a in (0.5, 0.5, -0.5, -0.5)]),
    ]
    assert of(GroupPolicyGradient(norm=2.0), step)[0][0] == pytest.approx(1.0)
    assert of(GroupPolicyGradient(), scored([-1, 0]))[0] == pytest.approx([-1.0, 1.0])


def test_reinforce_pp_baseline_whitens_over_trajectories() -> None:
    step = scored([1, 0, 0, 0], [1, 1, 1, 0])
    assert of(ReinforceBaseline(whiten="sequence"), step) == [
        pytest.approx([1.6202, -0.5401, -0.5401, -0.5401], abs=1e-4),
        pytest.approx([0.5401, 0.5401, 0.5401, -1.6202], abs=1e-4),
    ]


def test_reinforce_pp_baseline_whitens_over_tokens() -> None:
    tokens, centred = [3, 1], [0.5, -0.5]
    every = [a for n, a in zip(tokens, centred, strict=True) for _ in range(n)]
    mean = sum(every) / 4
    std = (sum((a - mean) ** 2 for a in every) / 3 + 1e-8) ** 0.5
    assert of(ReinforceBaseline(), lengths(tokens, [1, 0])) == [
        pytest.approx([(a - mean) / std for a in centred])
    ]


def test_reinforce_pp_whitens_returns_to_go_over_the_tokens_of_the_step() -> None:
    first = Group(task=TASK, trajectories=(turned([2, 1], 3.0, turns=(1.0, 2.0)), turned([1], 0.0)))
    out = ReinforcePlusPlus()(Scored(groups=(first,)))
    assert out.level is Level.TOKEN
    mean, std = 2.0, (6 / 3 + 1e-8) ** 0.5
    assert out.values[0][0] == pytest.approx([(r - mean) / std for r in (3, 3, 2)])
    assert out.values[0][1] == pytest.approx([(0 - mean) / std])


def parted(*scores: dict[str, float]) -> Scored:
    def one(parts: dict[str, float]) -> Trajectory:
        score = Score(value=sum(parts.values()), parts=parts)
        return replace(turned([1], 0.0), score=score)

    return Scored(groups=(Group(task=TASK, trajectories=tuple(map(one, scores))),))


def test_gdpo_normalises_each_part_before_it_adds_them() -> None:
    step = parted(
        {"big": 100.0, "small": 0.0}, {"big": 0.0, "small": 0.1}, {"big": 0.0, "small": 0.0}
    )
    # Each part alone is [1, 0, 0] in some order: 1.1547 and -0.5774 after normalising.
    sums = [1.1547 - 0.5774, -0.5774 + 1.1547, -2 * 0.5774]
    std = (sum(s * s for s in sums) / 2) ** 0.5
    got = of(DecoupledNormalised(eps=1e-9), step)[0]
    assert got == pytest.approx([s / std for s in sums], abs=1e-3)
    assert got[0] == pytest.approx(got[1])
    weighed = of(DecoupledNormalised(weights={"small": 0.0}), step)[0]
    assert weighed[1] == pytest.approx(weighed[2])


def test_gdpo_names_a_part_that_is_missing_or_misspelt() -> None:
    with pytest.raises(DataError, match=r"trajectory 1 of task credit/0 has .*\['b'\].*\['a'\]"):
        DecoupledNormalised()(parted({"a": 1.0}, {"b": 1.0}))
    with pytest.raises(DataError, match=r"no reward part is called 'formt'.*did you mean 'format'"):
        DecoupledNormalised(weights={"formt": 1.0})(parted({"format": 1.0}, {"format": 0.0}))
