"""MRT: the worked numbers, where episodes are cut, and what runs do with it."""

import math
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import pytest

from agentrl.algo.advantages.mrt import Progress
from agentrl.algo.advantages.mrt_dense import DenseProgress, progress, regret
from agentrl.core.errors import ConfigError
from agentrl.core.types import Forced, Group, Scored, Trajectory, Turn
from agentrl.rollout.cuts import Cut, cuts, onward, sampled_before
from agentrl.rollout.record import read_groups
from agentrl.rollout.strategies.mrt import Mrt
from agentrl.rollout.strategies.mrt_dense import MrtDense
from agentrl.train.loop import train
from support.credit import TASK, scored, turned
from support.play import renderer
from support.whole_runs import column, tiny, training_envs

__all__ = ["training_envs"]
BARE = ("eval.every=0", "eval.final_tasks=0", "eval.baselines=false", "rollout.record=true")


def group(*siblings: Trajectory) -> Scored:
    return Scored(groups=(Group(task=TASK, trajectories=siblings),))


def went_on(reward: float, before: int = 1) -> Trajectory:
    return replace(turned([3], reward), progress=((before, 0.5),))


def stopped(reward: float) -> Trajectory:
    return replace(went_on(reward), budget=0)


def test_progress_and_regret_of_the_worked_example() -> None:
    chances = [0.2, 0.5, 0.5, 0.9]
    assert progress(chances) == pytest.approx([0.3, 0.0, 0.4])
    assert regret(chances) == pytest.approx(1.9)


def test_going_on_is_paid_for_what_it_was_worth_beside_an_answer_at_once() -> None:
    step = group(went_on(1.0), went_on(0.0), stopped(1.0), stopped(0.0))
    out = Progress(alpha=0.5, eps=0.0)(step)
    shaped = [1.25, -0.25, 1.0, 0.0]
    std = math.sqrt(sum((s - 0.5) ** 2 for s in shaped) / 3)
    assert out.values[0] == pytest.approx([(s - 0.5) / std for s in shaped])
    assert out.metrics["mrt/progress"].mean == pytest.approx(0.0)
    step = group(went_on(1.0), went_on(1.0), stopped(0.25), stopped(0.0))
    assert Progress()(step).metrics["mrt/progress"].mean == pytest.approx(0.875)


def test_the_simplest_form_compares_with_those_who_answered_at_once() -> None:
    step = group(went_on(1.0), went_on(0.0), stopped(1.0), stopped(0.5))
    assert Progress(baseline="stop")(step).values[0] == pytest.approx([0.25, -0.75, 0.25, -0.25])


def test_what_lies_before_the_cut_is_not_trained() -> None:
    out = Progress()(group(went_on(1.0, 2), replace(stopped(0.0), progress=()), went_on(0.0, 9)))
    assert out.keep is not None
    assert out.keep[0] == ((False, False, True), None, (False, False, False))


def test_a_group_without_an_answer_at_once_is_grpo_s() -> None:
    assert Progress()(scored([1.0, 0.0])).values[0] == pytest.approx([0.7070, -0.7070], abs=1e-4)
    assert Progress(baseline="stop")(scored([1.0, 0.0])).values[0][0] == pytest.approx(
        0.7070, abs=1e-4
    )


def test_dense_progress_is_paid_where_a_part_ends() -> None:
    one = replace(turned([2, 2], 1.0), progress=((0, 0.2), (2, 0.5), (3, 0.4)))
    other = turned([1], 0.0)
    out = DenseProgress(alpha=1.0)(group(one, other))
    returns = [1.2, 1.2, 0.9, 1.0, 0.0]
    mean = fmean(returns)
    std = math.sqrt(sum((r - mean) ** 2 for r in returns) / 4)
    found = [*out.values[0][0], *out.values[0][1]]  # type: ignore[misc]
    assert found == pytest.approx([(r - mean) / std for r in returns], rel=1e-6)
    assert out.metrics["mrt/regret"].mean == pytest.approx(0.8 + 0.5 + 0.6)
    discounted = DenseProgress(alpha=0.0, gamma=0.5)(group(turned([3], 1.0), other))
    first = discounted.values[0][0]
    assert isinstance(first, list)
    assert (first[2] - first[1]) == pytest.approx(2 * (first[1] - first[0]))


def say(text: str, *, forced: Forced | None = None) -> Turn:
    ids = renderer().reply(text)
    return Turn(prompt_ids=(1,), action_ids=ids, sampler_logprobs=(0.0,) * len(ids), forced=forced)


def test_an_episode_is_cut_between_turns_and_where_a_pattern_ends_inside_a_reply() -> None:
    trajectory = replace(turned([1], 0.0), turns=(say("ant\n\nbee\n\nWait"), say("ant")))
    found = cuts(trajectory, renderer(), r"\n\n|(?=\bWait\b)")
    said = trajectory.turns[0].reply_ids
    heads = [renderer().text(said[: cut.tokens]) for cut in found if cut.turn == 0]
    assert heads == ["ant\n\n", "ant\n\nbee\n\n"], "the pause before Wait is the blank line's"
    assert found[-1] == Cut(1, 0)
    assert cuts(trajectory, renderer(), "") == [Cut(1, 0)]
    assert [sampled_before(trajectory, cut) for cut in found] == [
        len(renderer().encode("ant\n\n")),
        len(renderer().encode("ant\n\nbee\n\n")),
        len(said),
    ]


def test_what_was_forced_into_a_reply_is_handed_on_and_not_counted_as_sampled() -> None:
    trajectory = replace(turned([1], 0.0), turns=(say("ant", forced=Forced(0, (7, 8))),))
    assert sampled_before(trajectory, Cut(0, 3)) == 1
    fork, opening = onward(trajectory, 0, Cut(0, 3), words=(9,), budget=0)
    assert fork is None
    assert opening.ids == (7, 8, trajectory.turns[0].action_ids[0], 9)
    assert not opening.is_aside


def recorded(folder: Path, *settings: str) -> tuple[Path, list[Group]]:
    run = train(tiny(folder, *BARE, "rollout.group_size=6", *settings))
    return run, [g for path in sorted((run / "schedule").iterdir()) for g in read_groups(path)]


@pytest.mark.usefixtures("training_envs")
def test_a_run_lets_half_go_on_and_half_answer_from_one_point(tmp_path: Path) -> None:
    settings = ("strategy={name: mrt, words: 'ant'}", "advantage=mrt")
    run, groups = recorded(tmp_path, *settings)
    words = {g.trajectories[-1].turns[-1].forced for g in groups}
    assert words
    for one in groups:
        root, *others = one.trajectories
        assert [t.budget for t in one.trajectories] == [None] * 3 + [0] * 3
        assert root.parent is None
        [(before, chance)] = root.progress
        assert chance == fmean(bool(t.success) for t in others[2:])
        for sibling in others:
            assert sibling.failure is None
            turn = sibling.parent.turn if sibling.parent else 0
            assert sibling.turns[:turn] == root.turns[:turn]
            assert sibling.progress[0][0] == sum(len(t.action_ids) for t in root.turns[:turn])
            assert sibling.progress[0][0] <= before
        for sibling in others[2:]:
            turn = sibling.parent.turn if sibling.parent else 0
            assert sibling.turns[turn].forced is not None
    assert max(float(str(gap)) for gap in column(run, "mismatch/gap")) < 1e-4
    assert len(column(run, "mrt/progress")) == 2
    again, _ = recorded(tmp_path / "again", *settings)
    assert column(again, "loss/grad_norm") == column(run, "loss/grad_norm")


@pytest.mark.usefixtures("training_envs")
def test_probes_are_seen_as_progress_alone(tmp_path: Path) -> None:
    dense = ("strategy={name: mrt_dense, words: 'ant', probes: 2, most: 2}", "advantage=mrt_dense")
    run, groups = recorded(tmp_path, *dense)
    for one in groups:
        assert len(one.trajectories) == 6
        assert len({t.progress[0] for t in one.trajectories}) == 1, "the beginning is all siblings'"
        for trajectory in one.trajectories:
            places = [place for place, _ in trajectory.progress]
            assert places == sorted(set(places))
            assert places[0] == 0
            assert len(places) == min(2, len(trajectory.turns) - 1) + 1
            assert {chance for _, chance in trajectory.progress} <= {0.0, 0.5, 1.0}
    assert all(float(str(value)) >= 0 for value in column(run, "mrt/regret"))


@pytest.mark.usefixtures("training_envs")
def test_more_probes_than_a_group_has_numbers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"strategy\.probes: 6 siblings with 50 probes"):
        recorded(tmp_path, "strategy={name: mrt_dense, probes: 50}")
    assert MrtDense().probes == 2
    assert Mrt().words == "\n</think>\n\n"
