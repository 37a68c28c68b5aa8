"""A whole run on two processes: rollouts shared, one set of numbers, one folder, exact resume."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from safetensors.torch import load_file

from agentrl.track.jsonl import read_metrics
from agentrl.train.checkpoint import Checkpoints
from agentrl.train.loop import train
from support.launch import launch
from support.same import differences
from support.whole_ranks import VARIANTS, config
from support.whole_runs import training_envs

__all__ = ["training_envs"]
pytestmark = [
    pytest.mark.distributed,
    pytest.mark.timeout(600),
    pytest.mark.usefixtures("training_envs"),
]
DEADLINE_S = 500


LAUNCHES = {
    "ddp": ("ddp", ("lora", "warm", "bonus", "values")),
    "ddp, the rest": ("ddp", ("full", "dynamic")),
    "fsdp": ("fsdp", tuple(VARIANTS)),
    "deepspeed": ("deepspeed", tuple(VARIANTS)),
}
"""Backend and variants of each launch; imports take longer than a run."""
EVERY_LAUNCH = [
    pytest.param(name, marks=[] if name == "ddp" else pytest.mark.slow) for name in LAUNCHES
]
EVERY_RUN = [
    pytest.param(*param.values, variant, marks=param.marks, id=f"{param.values[0]}-{variant}")
    for param in EVERY_LAUNCH
    for variant in LAUNCHES[str(param.values[0])][1]
]


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder in which the two ranks of a launch left their runs."""

    @cache
    def of(name: str) -> Path:
        folder = tmp_path_factory.mktemp(name.replace(", ", "-").replace(" ", "-"))
        backend, variants = LAUNCHES[name]
        arguments = ["-m", "support.whole_ranks", str(folder), backend, *variants]
        with launch(arguments, world=2, deadline_s=DEADLINE_S) as wait:
            for end in wait():
                assert end.code == 0, end.output[-3000:]
        return folder

    return of


@pytest.mark.parametrize(("name", "variant"), [p for p in EVERY_RUN if "dynamic" not in p.values])
def test_two_processes_train_as_one_does(
    launched: Callable[[str], Path], tmp_path: Path, name: str, variant: str
) -> None:
    one, two = train(config(tmp_path, variant)), launched(name) / f"straight-{variant}" / "tiny"
    expected, found = read_metrics(one), read_metrics(two)
    assert len(expected) == len(found) == 4
    for there, here in zip(expected, found, strict=True):
        keys = {key for key in there if key != "seconds" and not key.startswith("time/")}
        assert keys == {k for k in here if k != "seconds" and not k.startswith("time/")}
        for key in keys:
            close = 1e-5 if key in ("loss/policy", "loss/grad_norm") else 1e-4
            assert here[key] == pytest.approx(there[key], rel=close, abs=2e-6), key
    weights = [
        load_file(path / "model.safetensors")
        for run in (one, two)
        if (path := Checkpoints(folder=run / "checkpoints").newest())
    ]
    assert weights[0].keys() == weights[1].keys()
    for name, tensor in weights[0].items():
        assert (weights[1][name] - tensor).abs().max() < 1e-4, name


@pytest.mark.parametrize(("name", "variant"), EVERY_RUN)
def test_a_resumed_run_on_two_processes_equals_the_uninterrupted_one(
    launched: Callable[[str], Path], name: str, variant: str
) -> None:
    found = [launched(name) / f"{kind}-{variant}" / "tiny" for kind in ("straight", "resumed")]
    assert differences(*found) == []


@pytest.mark.parametrize(("name", "variant"), [p for p in EVERY_RUN if "dynamic" in p.values])
def test_dynamic_sampling_fills_a_step_of_two_processes(
    launched: Callable[[str], Path], name: str, variant: str
) -> None:
    steps = read_metrics(launched(name) / f"straight-{variant}" / "tiny")
    assert [step["groups/trained"] for step in steps] == [3.0] * 4
    assert sum(float(str(step["groups/filtered"])) for step in steps) > 0


@pytest.mark.parametrize("name", EVERY_LAUNCH)
def test_a_batch_of_the_warm_start_that_two_cannot_share_is_refused(
    launched: Callable[[str], Path], name: str
) -> None:
    for rank in (0, 1):
        text = (launched(name) / f"refused-{rank}").read_text()
        assert "sft.batch_rows: 3 rows cannot be shared evenly by 2 processes" in text


@pytest.mark.parametrize(("name", "variant"), EVERY_RUN)
def test_each_rank_keeps_the_episodes_that_it_played(
    launched: Callable[[str], Path], name: str, variant: str
) -> None:
    folder = launched(name) / f"straight-{variant}" / "tiny" / "trajectories"
    names = {path.name for path in folder.iterdir()}
    assert {"train-000001.parquet", "train-000001.rank1.parquet"} <= names
