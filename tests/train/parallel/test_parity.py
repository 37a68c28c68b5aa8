"""The same numbers on two processes as on one: every backend, every case, in one launch each."""

import json
import os
import re
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from safetensors.torch import load_file

from agentrl.train.parallel.single import Single
from support.launch import launch
from support.parity import CASES, Case, Outcome, run_case
from support.ranks import RESUMED

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(700)]

DEADLINE_S = 600
PLANS, LAST = "parity,resume,broken", "lost"
STRICT = ("loss/policy", "loss/grad_norm")
BACKENDS = {
    "ddp": ("ddp",),
    "fsdp": ("fsdp",),
    "deepspeed 2": ("deepspeed", "stage=2"),
    "deepspeed 3": ("deepspeed", "stage=3", "persist_below=0"),
}
LAUNCHES = (("ddp",), ("fsdp",), ("deepspeed 2", "deepspeed 3"))
"""Imports take long, so one pair of processes serves both stages. Its last plan ends rank 1."""


@cache
def alone(case: Case) -> Outcome:
    return run_case(case, Single())


@pytest.fixture(scope="module")
def launches(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """For each backend the folder in which both ranks of its launch left what they found."""

    folders: dict[str, Path] = {}
    failures: dict[str, str] = {}

    def of(backend: str) -> Path:
        if backend not in folders:
            together = next(names for names in LAUNCHES if backend in names)
            top = tmp_path_factory.mktemp("launch")
            folders.update({name: top / name.replace(" ", "-") for name in together})
            failure = run_launch({name: folders[name] for name in together}, top / "compiled")
            failures.update(dict.fromkeys(together, failure))
        assert not failures[backend], failures[backend]
        return folders[backend]

    return of


def run_launch(folders: Mapping[str, Path], compiled: Path) -> str:
    """Runs all plans; what the ranks said if they did not end as they should."""
    arguments = ["-m", "support.ranks"]
    for backend, folder in folders.items():
        folder.mkdir()
        plans = f"{PLANS},{LAST}" if backend == [*folders][-1] else PLANS
        arguments += ["--", plans, str(folder), *BACKENDS[backend]]
    compiled.mkdir()
    variables = {"TORCH_EXTENSIONS_DIR": str(compiled)}
    with launch(arguments, world=2, deadline_s=DEADLINE_S, variables=variables) as wait:
        for case in CASES:  # meanwhile
            alone(case)
        ranks = wait()
    # Rank 1 ended on purpose, in the middle of its last plan.
    if [end.code for end in ranks] == [0, 7]:
        return ""
    return "".join(f"rank {n}: {end.code}\n{end.output[-3000:]}" for n, end in enumerate(ranks))


@pytest.fixture(params=BACKENDS)
def launched(request: pytest.FixtureRequest, launches: Callable[[str], Path]) -> tuple[str, Path]:
    return request.param, launches(request.param)


def found(folder: Path, plan: str, rank: int, world: int = 2) -> dict[str, Any]:
    text = (folder / f"{plan}-{rank}-of-{world}.json").read_text()
    return cast("dict[str, Any]", json.loads(text))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_two_processes_give_the_numbers_of_one(launched: tuple[str, Path], case: Case) -> None:
    backend, folder = launched
    ranks = [found(folder, "parity", rank)[case.name] for rank in (0, 1)]
    assert ranks[0] == ranks[1]
    if case.executor == "dfs" and backend != "ddp":
        assert "ranks meet in every forward pass" in ranks[0]
        return
    expected = alone(case)
    weights = load_file(folder / f"weights-{CASES.index(case)}.safetensors")
    note(backend, case, ranks[0], weights)
    for number, (here, step) in enumerate(zip(ranks[0], expected.metrics, strict=True)):
        assert here.keys() == step.keys()
        for key in here.keys() - {"trie/real_per_unique"}:  # what lies on two ranks is not shared
            total, weight = here[key]
            assert weight == step[key].weight, f"{key} of update {number}"
            # Beside loss and norm there are means of differences that are zero but for rounding.
            rel, zero = (1e-5, 0.0) if key in STRICT else (1e-4, 1e-5)
            there = pytest.approx(step[key].total, rel=rel, abs=zero)
            assert total == there, f"{key} of update {number}"
    assert weights.keys() == expected.weights.keys()
    limit = 1e-5 if case.optimiser == "sgd" else 1e-4
    for name, tensor in expected.weights.items():
        torch.testing.assert_close(weights[name], tensor, rtol=0, atol=limit, msg=name)


def note(
    backend: str, case: Case, steps: list[dict[str, Any]], weights: dict[str, torch.Tensor]
) -> None:
    """Keeps the largest differences for docs/scale.md where AGENTRL_PARITY names a folder."""
    if not (kept := os.environ.get("AGENTRL_PARITY")):
        return
    expected = alone(case)
    gaps = {
        key: max(
            abs(here[key][0] / there[key].total - 1.0)
            for here, there in zip(steps, expected.metrics, strict=True)
        )
        for key in STRICT
    }
    gaps["weights"] = max(
        float((weights[name] - tensor).abs().max()) for name, tensor in expected.weights.items()
    )
    path = Path(kept) / f"{backend.replace(' ', '-')}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    told = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**told, case.name: gaps}, indent=1) + "\n")


@pytest.mark.parametrize("case", RESUMED, ids=lambda case: case.name)
def test_a_resumed_run_equals_the_uninterrupted_one_bit_for_bit(
    launched: tuple[str, Path], case: Case
) -> None:
    for rank in (0, 1):
        assert found(launched[1], "resume", rank)[case.name] == 0.0


def test_a_loss_that_is_not_a_number_on_one_rank_stops_all_and_changes_nothing(
    launched: tuple[str, Path],
) -> None:
    for rank in (0, 1):
        told = found(launched[1], "broken", rank)
        assert re.match(r"the loss is nan at micro-batch \d+ of \d+ on rank 1", told["raised"])
        assert not told["changed"]


@pytest.mark.parametrize("backend", [names[-1] for names in LAUNCHES])
def test_a_rank_that_ends_in_the_middle_of_a_step_is_noticed_and_named(
    launches: Callable[[str], Path], backend: str
) -> None:
    told = found(launches(backend), LAST, 0)
    assert "rank 0 of 2 waited for the others in" in told["raised"]
    assert told["seconds"] < 20


def test_nothing_was_compiled(launched: tuple[str, Path]) -> None:
    assert not list((launched[1].parent / "compiled").rglob("*"))


def test_shards_of_two_ranks_resume_on_one_and_on_three(
    launches: Callable[[str], Path],
) -> None:
    folder = launches("fsdp")
    arguments = ["-m", "support.ranks", "elsewhere", str(folder), "fsdp"]
    with (
        launch(arguments, world=1, deadline_s=DEADLINE_S) as wait_for_one,
        launch(arguments, world=3, deadline_s=DEADLINE_S) as wait_for_three,
    ):
        for end in (*wait_for_one(), *wait_for_three()):
            assert end.code == 0, end.output[-3000:]
    for world in (1, 3):
        for rank in range(world):
            gaps = found(folder, "elsewhere", rank, world)
            assert gaps.keys() == {case.name for case in RESUMED}
            assert all(gap <= 1e-6 for gap in gaps.values()), gaps


def test_a_rank_that_hangs_is_given_up_within_twice_the_deadline(tmp_path: Path) -> None:
    arguments = ["-m", "support.ranks", "lost", str(tmp_path), "ddp", "timeout_s=5"]
    variables = {"AGENTRL_TEST_HANG": "1"}
    with launch(arguments, world=2, deadline_s=DEADLINE_S, variables=variables) as wait:
        ended = wait(only=[0])[0]
    assert ended.code == 0, ended.output[-3000:]
    told = found(tmp_path, "lost", 0)
    assert "gave up (parallel.timeout_s=5)" in told["raised"]
    assert 4 < told["seconds"] < 10
