"""Every launch that contradicts the config is refused by name, before anything is loaded."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from agentrl.core.config import Config
from agentrl.core.errors import ConfigError, TrainingError
from agentrl.core.loading import load
from agentrl.core.protocols import Parallel
from agentrl.train.parallel.ddp import Ddp
from agentrl.train.parallel.deepspeed import DeepSpeed
from agentrl.train.parallel.fsdp import Fsdp
from agentrl.train.parallel.launch import check_launch
from agentrl.train.parallel.single import Single
from support.launch import free_port, launcher_variables
from support.models import tiny_policy

BACKENDS = ("single", "ddp", "fsdp", "deepspeed")
SEVERAL = ("ddp", "fsdp", "deepspeed")
TWO = launcher_variables(0, 2, 29500)


@pytest.fixture
def one_of_one(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What torchrun sets for a launch of one process."""
    for name, value in launcher_variables(0, 1, free_port()).items():
        monkeypatch.setenv(name, value)
    yield
    if dist.is_initialized():
        dist.destroy_process_group()


def backend(name: str, *settings: str) -> Parallel:
    return load(Config, None, [f"parallel={name}", *settings]).parallel


@pytest.mark.parametrize("variable", ["WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE"])
def test_single_under_a_launcher_of_several_is_refused(variable: str) -> None:
    with pytest.raises(ConfigError, match=rf"one of 2 processes \({variable}=2\).*one folder"):
        check_launch("single", {variable: "2"})


def test_single_refuses_when_it_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="unrelated runs in one folder"):
        Single().start()


@pytest.mark.parametrize("name", SEVERAL)
def test_several_processes_without_a_launcher_are_told_the_command(name: str) -> None:
    with pytest.raises(ConfigError, match=f"torchrun --nproc-per-node 2 .* parallel={name}"):
        check_launch(name, {"RANK": "0", "WORLD_SIZE": "2"})


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("asked", ["fsdp", "deepspeed"])
def test_what_accelerate_asks_for_must_be_what_the_config_says(name: str, asked: str) -> None:
    variables = {**TWO, f"ACCELERATE_USE_{asked.upper()}": "true"}
    if name == asked:
        check_launch(name, variables)
        return
    with pytest.raises(ConfigError, match=f"config says '{name}', .* asks for '{asked}'"):
        check_launch(name, variables)


def test_what_accelerate_does_not_ask_for_is_no_contradiction() -> None:
    off = {"ACCELERATE_USE_FSDP": "false", "ACCELERATE_USE_DEEPSPEED": "false"}
    for name in SEVERAL:
        check_launch(name, {**TWO, **off, "ACCELERATE_MIXED_PRECISION": "no"})
    check_launch("single", off)


@pytest.mark.parametrize(
    ("variable", "value"),
    [("ACCELERATE_MIXED_PRECISION", "bf16"), ("ACCELERATE_USE_MEGATRON_LM", "true")],
)
def test_settings_of_accelerate_that_would_be_ignored_are_refused(
    variable: str, value: str
) -> None:
    with pytest.raises(ConfigError, match=f"{variable}={value}"):
        check_launch("fsdp", {**TWO, variable: value})


def test_a_zero_stage_of_accelerate_must_be_the_configs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_ZERO_STAGE", "3")
    with pytest.raises(ConfigError, match=r"parallel\.stage: the config says 2, .* stage 3"):
        DeepSpeed(stage=2).start()


def test_stage_2_cannot_offload_weights() -> None:
    with pytest.raises(ConfigError, match="stage=3"):
        backend("deepspeed", "parallel.stage=2", "parallel.offload=all")


@pytest.mark.parametrize("name", SEVERAL)
def test_a_backend_that_was_not_started_says_so(name: str) -> None:
    parallel = backend(name)
    with pytest.raises(TrainingError, match=r"before start\(\)"):
        _ = parallel.rank
    with pytest.raises(TrainingError, match=r"before wrap\("):
        _ = parallel.optimiser


def test_one_process_under_torchrun_is_fine(one_of_one: None) -> None:
    parallel = Ddp(timeout_s=30)
    parallel.start()
    try:
        assert (parallel.rank, parallel.world) == (0, 1)
        assert parallel.exchange("x") == ["x"]
        assert parallel.total([1.5, 2.0]) == parallel.largest([1.5, 2.0]) == [1.5, 2.0]
    finally:
        parallel.close()
    parallel.close()
    assert not dist.is_initialized()


def test_a_world_that_is_not_the_announced_one_is_refused(
    one_of_one: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    dist.init_process_group("gloo")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match=r"announced WORLD_SIZE=2, and .* joined 1 process"):
        Ddp().start()


def test_ranks_that_do_not_come_end_in_a_named_error(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in launcher_variables(0, 2, free_port()).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match="rank 0 could not join the other 1 within 1 s"):
        Ddp(timeout_s=1).start()
    assert not dist.is_initialized()


def test_weights_that_did_not_come_apart_are_refused(one_of_one: None) -> None:
    parallel = Fsdp()
    parallel.start()
    try:
        with pytest.raises(ConfigError, match="they were not sharded"):
            parallel._prove_shards(torch.nn.Linear(2, 3))
    finally:
        parallel.close()


def test_one_process_under_torchrun_shards_into_one_part(one_of_one: None, tmp_path: Path) -> None:
    parallel = Fsdp()
    parallel.start()
    try:
        module = tiny_policy().module
        whole = {name: tensor.clone() for name, tensor in module.state_dict().items()}
        parallel.wrap(module, lambda m: torch.optim.SGD(m.parameters(), lr=0.1))
        gathered = parallel.gather()
        assert gathered.keys() == whole.keys()
        assert all(torch.equal(gathered[name], whole[name]) for name in whole)
    finally:
        parallel.close()
