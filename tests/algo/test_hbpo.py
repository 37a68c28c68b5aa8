"""HBPO: the worked numbers, who is told what, and what a run does with it."""

import asyncio
import math
from dataclasses import replace
from pathlib import Path

import pytest

from agentrl.algo.advantages.grpo import GroupNormalised
from agentrl.algo.advantages.hbpo import BudgetGroups
from agentrl.core.budget import worth
from agentrl.core.errors import ConfigError
from agentrl.core.types import Group, Scored, Stop, Trajectory
from agentrl.rewards.budget import BudgetReward
from agentrl.rollout.record import read_groups
from agentrl.rollout.strategies.budget_subgroups import BudgetSubgroups
from agentrl.train.loop import train
from support.credit import TASK, scored, turned
from support.whole_runs import column, tiny, training_envs

__all__ = ["training_envs"]
BARE = ("eval.every=0", "eval.final_tasks=0", "eval.baselines=false", "rollout.record=true")


@pytest.mark.parametrize(
    ("tokens", "value"), [(512, 3.9231), (1024, 3.6955), (2048, 2.8284), (2560, 2.2223)]
)
def test_what_a_success_is_worth_falls_with_its_length(tokens: int, value: float) -> None:
    assert worth(tokens, 4096) == pytest.approx(value, abs=1e-4)


def played(tokens: int, budget: int | None, *, success: bool = True) -> Trajectory:
    return replace(turned([tokens], 0.0), budget=budget, success=success, score=None)


def paid(trajectory: Trajectory) -> float:
    return asyncio.run(BudgetReward()(trajectory)).value


@pytest.mark.parametrize(
    ("tokens", "budget", "value"),
    [
        (512, 512, 3.9231),
        (1024, 512, 3.5705),
        (512, 2560, 2.2223),
        (256, 512, 3.9182),
        (1024, None, 3.6955),
    ],
)
def test_the_reward_of_a_success(tokens: int, budget: int | None, value: float) -> None:
    assert paid(played(tokens, budget)) == pytest.approx(value, abs=1e-4)


def test_what_failed_was_too_long_or_was_no_action_is_told_apart() -> None:
    assert paid(played(100, 512, success=False)) == 0.0
    assert paid(played(4097, 512)) == 0.0
    assert paid(replace(played(9, 512, success=False), stop=Stop.BAD_ACTION)) == -1.0
    garbled = played(9, 512, success=False)
    garbled = replace(garbled, turns=(replace(garbled.turns[0], invalid=True),))
    assert paid(garbled) == -1.0
    assert asyncio.run(BudgetReward()(replace(garbled, turns=()))).turns == ()


@pytest.mark.parametrize("budget", [512, 1024, 2048, 2560])
def test_beyond_its_budget_a_longer_success_is_never_worth_more(budget: int) -> None:
    values = [paid(played(n, budget)) for n in range(budget, 4097, 64)]
    assert values == sorted(values, reverse=True)


def told(rewards: list[tuple[float, int | None]]) -> Group:
    trajectories = tuple(replace(turned([3], reward), budget=budget) for reward, budget in rewards)
    return Group(task=TASK, trajectories=trajectories)


def test_a_subgroup_pays_for_what_it_earned_below_its_budget_s_worth() -> None:
    group = told([(3.9231, 512), (0.0, 512), (2.2223, 2560), (2.2223, 2560)])
    out = BudgetGroups()(Scored(groups=(group,)))
    within = GroupNormalised(eps=1e-6)(Scored(groups=(group,)))
    below = 3.9231 / 2 - worth(512, 4096)
    full = 2.2223 - worth(2560, 4096)
    plain = [float(value) for value in within.values[0]]  # type: ignore[arg-type]
    expected = [own + term for own, term in zip(plain, [below, below, full, full], strict=True)]
    assert out.values[0] == pytest.approx(expected, abs=1e-9)
    twice = BudgetGroups(weight=2.0)(Scored(groups=(group,))).values[0][0]
    assert twice == pytest.approx(plain[0] + 2 * below)


def test_without_budgets_it_is_grpo_and_what_failed_is_left_out() -> None:
    step = scored([1.0, 0.0, None, 1.0], [0.5, 0.5])
    assert BudgetGroups()(step).values == GroupNormalised(eps=1e-6)(step).values


def test_budgets_that_cannot_be_are_refused() -> None:
    with pytest.raises(ConfigError, match="budgets: expected different numbers from 1 on"):
        BudgetSubgroups(budgets=(8, 8))
    with pytest.raises(ConfigError, match=r"words: expected a text that holds \{budget\}"):
        BudgetSubgroups(words="be brief")


HBPO = (
    "strategy={name: budget_subgroups, budgets: [4, 9], words: '{budget}!'}",
    "reward={name: budget, cap: 16}",
    "advantage={name: hbpo, cap: 16}",
)


@pytest.mark.usefixtures("training_envs")
def test_a_run_tells_each_subgroup_its_budget_and_never_trains_the_words(tmp_path: Path) -> None:
    run = train(tiny(tmp_path, *BARE, *HBPO, "rollout.group_size=4"))
    groups = [g for path in sorted((run / "schedule").iterdir()) for g in read_groups(path)]
    assert groups
    for group in groups:
        assert [t.budget for t in group.trajectories] == [4, 4, 9, 9]
        for trajectory in group.trajectories:
            first, *others = trajectory.turns
            assert first.forced is not None
            assert first.forced.at == 0
            assert first.reply_ids == first.forced.ids + first.action_ids
            assert len(first.forced.ids) > 0
            assert all(turn.forced is None for turn in others)
        words = {t.budget: t.turns[0].forced for t in group.trajectories}
        assert words[4] != words[9]
    assert all(math.isfinite(float(str(norm))) for norm in column(run, "loss/grad_norm"))
    gaps = [float(str(gap)) for gap in column(run, "mismatch/gap")]
    assert max(gaps) < 1e-4, "the trainer sees the words where the sampler saw them"


@pytest.mark.usefixtures("training_envs")
def test_a_group_that_cannot_be_divided_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected a multiple of the 2 budgets"):
        train(tiny(tmp_path, *BARE, *HBPO, "rollout.group_size=5"))
