"""SIGKILL at random moments, in real processes: nothing is lost, skipped or trained twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.kills import SETTINGS, VARIANTS, kill_often

QUICK = ["sft=none", "eval.baselines=false", "run.steps=4"]


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("kills", "variants"),
    [
        (3, [QUICK]),
        pytest.param(20, VARIANTS, marks=[pytest.mark.slow, pytest.mark.timeout(900)]),
    ],
    ids=["3", "20"],
)
def test_a_run_that_is_killed_at_random_moments_equals_one_that_is_not(
    tmp_path: Path, kills: int, variants: list[list[str]]
) -> None:
    report = kill_often(SETTINGS, tmp_path, kills=kills, seed=kills, variants=variants)
    assert report.kills == kills
    assert report.mismatches == []
