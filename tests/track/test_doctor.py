"""What the doctor says of metrics made by hand, and when it keeps quiet."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from agentrl.track.console import Console
from agentrl.track.doctor import CHECKS, FIRST, KEPT, Doctor, examine
from agentrl.track.jsonl import JsonLines

WELL = {
    "rollout/success": 0.4,
    "rollout/reward": 0.4,
    "rollout/tokens": 20.0,
    "rollout/invalid": 0.1,
    "groups/frac_zero_std": 0.3,
    "loss/entropy": 0.6,
    "loss/grad_norm": 0.5,
    "loss/ratio": 1.0,
    "loss/clip_low": 0.01,
    "loss/trained_share": 0.08,
    "drift/old_k3": 1e-3,
    "drift/ref_k3": 0.02,
    "mismatch/k3": 1e-9,
    "rollout/staleness": 0.0,
    "reward/parts_correlation": 0.2,
}
ILL: dict[str, Mapping[str, float]] = {
    "entropy collapse": {"loss/entropy": 0.02},
    "dead groups": {"groups/frac_zero_std": 1.0},
    "length hacking": {"rollout/tokens": 60.0, "rollout/reward": 0.8},
    "stale samples": {"rollout/staleness": 6.0},
    "exploding ratio": {"drift/old_k3": 0.4, "loss/clip_low": 0.4},
    "mask share": {"loss/trained_share": 0.01},
    "sampler mismatch": {"mismatch/k3": 0.02},
    "learning rate too high": {"rollout/success": 0.1, "loss/grad_norm": 9.0},
    "learning rate too low": {"drift/old_k3": 1e-11},
    "reward parts at war": {"reward/parts_correlation": -0.9},
    "invalid actions rising": {"rollout/invalid": 0.6},
}


def kinds(lines: list[dict[str, float]]) -> list[str]:
    return [finding.kind for finding in examine(lines)]


def test_a_run_that_goes_well_hears_nothing() -> None:
    assert kinds([WELL] * 40) == []
    assert examine([]) == []
    assert examine([{}] * 30) == []


@pytest.mark.parametrize("kind", ILL)
def test_each_trouble_is_named_alone_and_with_what_to_try(kind: str) -> None:
    [finding] = examine([WELL] * 12 + [{**WELL, **ILL[kind]}] * 12)
    assert finding.kind == kind
    assert 12 < finding.step <= 24
    assert finding.line().startswith(f"doctor: step {finding.step}: {kind}: ")
    assert finding.advice in finding.line()


def test_a_divergence_that_grows_runs_away_and_one_that_rests_does_not() -> None:
    growing = [{**WELL, "drift/ref_k3": 0.02 * 1.5**i} for i in range(12)]
    assert kinds(growing) == ["KL runaway"]
    assert "KL runaway" not in kinds([{**WELL, "drift/ref_k3": 2.0}] * 20)


def test_every_check_is_tried_here() -> None:
    assert {check.kind for check in CHECKS} == {*ILL, "KL runaway"}
    assert len(CHECKS) == 12


def test_what_a_solved_task_looks_like_is_no_trouble() -> None:
    solved = {**WELL, "rollout/success": 0.97, "rollout/reward": 0.97}
    sure = {"loss/entropy": 0.005, "groups/frac_zero_std": 1.0, "drift/old_k3": 1e-11}
    assert kinds([WELL] * 10 + [solved] * 5 + [{**solved, **sure}] * 15) == []


def test_stale_samples_may_differ_from_the_trainer() -> None:
    old = {**WELL, "mismatch/k3": 0.02, "rollout/staleness": 1.5}
    assert kinds([old] * 20) == []


def test_one_update_a_step_does_not_show_how_far_the_policy_moves() -> None:
    assert kinds([{**WELL, "drift/old_k3": 0.0}] * 20) == []


def test_a_trouble_is_told_once_and_long_runs_are_not_kept_whole() -> None:
    doctor = Doctor()
    told = [doctor.observe(step, {**WELL, "mismatch/k3": 1.0}) for step in range(KEPT + 50)]
    assert [len(news) for news in told].count(1) == 1
    assert sum(map(len, told)) == 1
    assert len(doctor.lines) == KEPT
    assert FIRST < KEPT


def test_the_console_tells_it_and_keeps_its_name_on_the_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    sink = Console(every=1)
    sink.open(tmp_path, "run", 8)
    for step in range(1, 7):
        sink.log(step, {**WELL, "groups/frac_zero_std": 1.0})
    sink.close()
    lines = capsys.readouterr().out.splitlines()
    assert [line.startswith("doctor: step 5: dead groups") for line in lines].count(True) == 1
    assert "doctor: dead groups" in lines[-1]


def test_a_resumed_run_remembers_what_it_was_told(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    written = JsonLines()
    written.open(tmp_path, "run", 8)
    for step in range(1, 7):
        written.log(step, {**WELL, "groups/frac_zero_std": 1.0})
    written.close()
    sink = Console(every=1)
    sink.open(tmp_path, "run", 8, resumed=6)
    sink.log(7, {**WELL, "groups/frac_zero_std": 1.0})
    sink.close()
    told = capsys.readouterr().out
    assert "step 5: dead groups" not in told
    assert "doctor: dead groups" in told
