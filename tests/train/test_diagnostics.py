"""What groups say beyond their means: by hand, and in a run."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from agentrl.core.errors import ConfigError
from agentrl.core.styles import Styles
from agentrl.core.types import Group, Stop, Trajectory, Turn
from agentrl.evaluate.statistics import pass_at_k
from agentrl.train.diagnostics import diagnosed, group_metrics, likelihood, style_metrics
from agentrl.train.loop import train
from support.credit import TASK, turned
from support.whole_runs import column, tiny, training_envs

__all__ = ["training_envs"]
BARE = ("eval.every=0", "eval.final_tasks=0", "eval.baselines=false")


def played(logprob: float, *, success: bool, ids: tuple[int, ...] = (7,)) -> Trajectory:
    turn = Turn(prompt_ids=(1,), action_ids=ids, sampler_logprobs=(logprob,) * len(ids))
    return replace(turned([1], float(success)), turns=(turn,), success=success)


def group(*siblings: Trajectory) -> Group:
    return Group(task=TASK, trajectories=siblings)


def test_pass_at_k_is_the_share_of_groups_that_one_sibling_solved() -> None:
    solved = group(*(played(-1.0, success=i == 0) for i in range(4)))
    failed = group(*(played(-1.0, success=False) for _ in range(3)))
    assert group_metrics([solved, failed])["groups/pass_at_k"].mean == pytest.approx(
        (pass_at_k(4, 1, 4) + pass_at_k(3, 0, 3)) / 2
    )


def test_what_the_policy_finds_likeliest_is_compared_with_what_succeeds() -> None:
    one = group(
        played(-1.0, success=True),
        played(-2.0, success=False),
        played(-1.0, success=False),
        played(-0.5, success=True, ids=(7, 8)),
    )
    found = group_metrics([one])
    assert found["verify/pairs"].mean == pytest.approx((1 + 0.5 + 1 + 1) / 4)
    assert found["verify/gap"].mean == pytest.approx(1.0 - 0.5)
    alike = group(*(played(-1.0, success=i < 1) for i in range(4)))
    assert group_metrics([alike])["verify/gap"].mean == 0.0
    assert group_metrics([alike])["verify/pairs"].mean == 0.5
    assert likelihood(replace(one.trajectories[0], turns=())) == 0.0


def test_groups_that_cannot_tell_are_left_out() -> None:
    sure = group(played(-1.0, success=True), played(-1.0, success=True))
    assert "verify/pairs" not in group_metrics([sure])
    failed = replace(played(-1.0, success=False), stop=Stop.ERROR, score=None)
    assert group_metrics([group(failed, played(-1.0, success=True))]) == {}
    assert group_metrics([]) == {}


STYLES = Styles(patterns={"code": "def ", "tagged": "<code>"})


def test_the_first_pattern_that_is_found_names_an_episode() -> None:
    assert [STYLES.of(text) for text in ("<code>def f", "<code>", "plain")] == [
        "code",
        "tagged",
        "other",
    ]


def test_shares_successes_and_entropy_of_styles() -> None:
    texts = {1: "def f", 2: "<code>", 3: "so"}
    episodes = [(1, True), (1, False), (2, True), (3, False)]
    one = group(*(played(-1.0, success=right, ids=(kind,)) for kind, right in episodes))
    found = style_metrics([one], STYLES, lambda ids: texts[ids[0]])
    assert {key: value.mean for key, value in found.items()} == {
        "style/code": 0.5,
        "style/code_success": 0.5,
        "style/tagged": 0.25,
        "style/tagged_success": 1.0,
        "style/other": 0.25,
        "style/other_success": 0.0,
        "style/entropy": pytest.approx(1.5 * math.log(2)),
    }
    assert style_metrics([one], None, str) == {}
    assert diagnosed([one], STYLES, lambda ids: texts[ids[0]]).keys() >= found.keys()


@pytest.mark.parametrize(
    ("patterns", "said"),
    [
        ({"a": "("}, r"patterns\.a: expected a regular expression"),
        ({}, "patterns: expected at least one"),
        ({"other": "x"}, "none of them called 'other'"),
    ],
)
def test_patterns_that_cannot_be_are_refused(patterns: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Styles(patterns=patterns)


@pytest.mark.usefixtures("training_envs")
def test_a_run_counts_styles_where_it_is_told_to(tmp_path: Path) -> None:
    run = train(tiny(tmp_path, *BARE, "styles={patterns: {short: '^.{0,3}$'}}"))
    for short, other in zip(column(run, "style/short"), column(run, "style/other"), strict=True):
        assert float(str(short)) + float(str(other)) == pytest.approx(1.0)
    assert all(isinstance(value, float) for value in column(run, "groups/pass_at_k"))
    assert [float(str(ess)) for ess in column(run, "mismatch/ess")] == pytest.approx([1.0, 1.0])
