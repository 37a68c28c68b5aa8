"""Which tokens good and bad siblings have in common, and what becomes of their advantage."""

from collections.abc import Sequence

import pytest

from agentrl.algo.advantages.gtpo_conflict import ConflictAware, conflict_runs
from agentrl.algo.advantages.gtpo_turn import TurnReturns
from agentrl.core.errors import DataError
from agentrl.core.types import Group, Level, Score, Scored, Stop, Trajectory, Turn
from support.credit import TASK

GOOD, BAD = [5, 7, 9, 2], [5, 7, 8, 2]


def said(ids: Sequence[int], reward: float) -> Trajectory:
    """The tokens in turns of two."""
    parts = [tuple(ids[i : i + 2]) for i in range(0, len(ids), 2)]
    turns = [
        Turn(prompt_ids=(1,), action_ids=part, sampler_logprobs=(0.0,) * len(part))
        for part in parts
    ]
    return Trajectory(task=TASK, turns=tuple(turns), stop=Stop.DONE, score=Score(value=reward))


def of(estimator: ConflictAware, entropy: float, *siblings: Trajectory) -> list[list[float]]:
    step = Scored(
        groups=(Group(task=TASK, trajectories=siblings),),
        entropies=[[[entropy] * t.n_tokens for t in siblings]],
    )
    out = estimator(step)
    assert out.level is Level.TOKEN
    return [[*value] for value in out.values[0] if not isinstance(value, float | None)]


def test_prefix_and_suffix_are_in_conflict() -> None:
    assert conflict_runs([GOOD, BAD], [1.0, -1.0]) == [range(2, 3), range(2, 3)]
    good, bad = of(ConflictAware(entropy_coef=0.0), 0.5, said(GOOD, 1), said(BAD, 0))
    a = good[2]
    assert good == pytest.approx([2 * a, 2 * a, a, 2 * a])
    assert bad == pytest.approx([0, 0, -a, 0])


def test_a_token_that_only_good_siblings_share_is_no_conflict() -> None:
    assert conflict_runs([GOOD, GOOD], [1.0, 1.0]) == [range(4), range(4)]
    assert conflict_runs([GOOD, BAD], [1.0, 0.0]) == [range(4), range(4)]


def test_one_gap_ends_a_run() -> None:
    runs = conflict_runs([[1, 2, 3, 4, 5], [1, 9, 3, 8, 5]], [1.0, -1.0])
    assert runs == [range(1, 4), range(1, 4)]


def test_suffixes_are_counted_from_the_end() -> None:
    assert conflict_runs([[1, 2, 3], [9, 8, 2, 3]], [1.0, -1.0]) == [range(1), range(2)]


def test_a_token_of_both_runs_is_raised_once() -> None:
    good, bad = of(ConflictAware(entropy_coef=0.0), 0.5, said([4, 4], 1), said([4, 4], 0))
    plain, _ = of(ConflictAware(entropy_coef=0.0), 0.5, said([4, 4], 1), said([6, 6], 0))
    assert good == pytest.approx([2 * a for a in plain])
    assert bad == [0.0, 0.0]


def test_unsure_episodes_lose_some_of_their_advantage_or_all_of_it() -> None:
    sure, _ = of(ConflictAware(entropy_coef=0.0), 0.5, said([4], 1), said([6], 0))
    less, _ = of(ConflictAware(), 0.5, said([4], 1), said([6], 0))
    assert less[0] == pytest.approx(sure[0] - 0.05)
    assert of(ConflictAware(), 0.71, said([4], 1), said([6], 0)) == [[0.0], [0.0]]


def test_an_estimator_of_turns_is_refused() -> None:
    with pytest.raises(DataError, match=r"gtpo_conflict.of: expected one advantage for each epis"):
        of(ConflictAware(of=TurnReturns()), 0.1, said([4], 1), said([6], 0))
