"""The same numbers on two processes as on one: every backend, every case, in one launch each."""

import json
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

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(170)]

DEADLINE_S = 150
STRICT = ("loss/policy", "loss/grad_norm")
BACKENDS = {
    "ddp": ("ddp",),
    "fsdp": ("fsdp",),
    "deepspeed 2": ("deepspeed", "parallel.stage=2"),
    "deepspeed 3": ("deepspeed", "parallel.stage=3", "parallel.persist_below=0"),
}


@cache
def alone(case: Case) -> Outcome:
    return run_case(case, Single())


@pytest.fixture(scope="module", params=BACKENDS)
def launched(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which both ranks of a backend left what they found."""
    folder = tmp_path_factory.mktemp(request.param.replace(" ", "-"))
    arguments = ["-m", "support.ranks", "parity,resume", str(folder), *BACKENDS[request.param]]
    with launch(arguments, world=2, deadline_s=DEADLINE_S) as wait:
        for case in CASES:  # meanwhile
            alone(case)
        for end in wait():
            assert end.code == 0, end.output[-3000:]
    return folder


def found(folder: Path, plan: str, rank: int, world: int = 2) -> dict[str, Any]:
    text = (folder / f"{plan}-{rank}-of-{world}.json").read_text()
    return cast("dict[str, Any]", json.loads(text))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_two_processes_give_the_numbers_of_one(launched: Path, case: Case) -> None:
    ranks = [
        json.loads((launched / f"parity-{r}-of-2.json").read_text())[case.name] for r in (0, 1)
    ]
    assert ranks[0] == ranks[1]
    expected = alone(case)
    for number, (here, step) in enumerate(zip(ranks[0], expected.metrics, strict=True)):
        assert here.keys() == step.keys()
        for key in here:
            closeness = 1e-5 if key in STRICT else 1e-4
            there = pytest.approx([step[key].total, step[key].weight], rel=closeness, abs=1e-7)
            assert here[key] == there, f"{key} of update {number}"
    weights = load_file(launched / f"weights-{CASES.index(case)}.safetensors")
    assert weights.keys() == expected.weights.keys()
    limit = 1e-5 if case.optimiser == "sgd" else 1e-4
    for name, tensor in expected.weights.items():
        torch.testing.assert_close(weights[name], tensor, rtol=0, atol=limit, msg=name)


@pytest.mark.parametrize("case", RESUMED, ids=lambda case: case.name)
def test_a_resumed_run_equals_the_uninterrupted_one_bit_for_bit(launched: Path, case: Case) -> None:
    for rank in (0, 1):
        assert found(launched, "resume", rank)[case.name] == 0.0
