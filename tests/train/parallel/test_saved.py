"""What backends write to go on from: read by those who can, refused by name to the others."""

import io
import json
import pickle
from pathlib import Path

import pytest
import torch
from torch.distributed.checkpoint.metadata import _MEM_FORMAT_ENCODING

from agentrl.core.errors import CheckpointError, ConfigError
from agentrl.train.parallel.deepspeed import Tensors
from agentrl.train.parallel.shards import Reader, Records
from agentrl.train.parallel.single import Single
from agentrl.train.parallel.whole import LABEL, check_label, write_label
from support.parity import CASES, Case, build, optimiser_of, train_steps

ADAMW = [case for case in CASES if case.optimiser == "adamw"]


@pytest.mark.parametrize("case", ADAMW, ids=lambda case: case.name)
def test_a_resumed_process_goes_on_bit_for_bit(tmp_path: Path, case: Case) -> None:
    first, again = Single(), Single()
    module = first.wrap(build(case), optimiser_of(case))
    train_steps(case, first, module, range(2))
    first.save(tmp_path)
    other = build(case)
    if not case.lora:
        other.load_state_dict(module.state_dict())
    again.wrap(other, optimiser_of(case))
    again.load(tmp_path)
    for parallel, trained in ((first, module), (again, other)):
        train_steps(case, parallel, trained, range(2, 4))
    expected = first.gather()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in again.gather().items())


def test_one_process_goes_on_from_what_several_saved(tmp_path: Path) -> None:
    case, parallel, again = ADAMW[1], Single(), Single()
    train_steps(case, parallel, parallel.wrap(build(case), optimiser_of(case)), range(2))
    parallel.save(tmp_path)
    write_label(tmp_path, "ddp", 2)
    again.wrap(build(case), optimiser_of(case))
    again.load(tmp_path)
    expected = parallel.gather()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in again.gather().items())


def test_only_the_adapter_is_kept_apart(tmp_path: Path) -> None:
    for case in ADAMW:
        parallel = Single()
        parallel.wrap(build(case), optimiser_of(case))
        folder = tmp_path / str(case.lora)
        folder.mkdir()
        parallel.save(folder)
        assert (folder / "trained.safetensors").exists() == case.lora


def test_an_optimiser_of_another_model_is_refused(tmp_path: Path) -> None:
    parallel = Single()
    parallel.wrap(torch.nn.Linear(2, 2), lambda m: torch.optim.AdamW(m.parameters()))
    parallel.save(tmp_path)
    parallel.wrap(torch.nn.Linear(2, 2, bias=False), lambda m: torch.optim.AdamW(m.parameters()))
    with pytest.raises(CheckpointError, match="its optimiser is of another model"):
        parallel.load(tmp_path)


def test_a_label_refuses_other_backends_other_worlds_and_other_formats(tmp_path: Path) -> None:
    write_label(tmp_path, "deepspeed stage 2", 2)
    own = frozenset({"deepspeed stage 2"})
    check_label(tmp_path, "deepspeed stage 2", 2, reads=own, any_world=False)
    with pytest.raises(ConfigError, match=r"on 2 ranks, and this run has 3.*exported weights"):
        check_label(tmp_path, "deepspeed stage 2", 3, reads=own, any_world=False)
    with pytest.raises(ConfigError, match="saved by parallel=deepspeed stage 2, which fsdp cannot"):
        check_label(tmp_path, "fsdp", 2, reads=frozenset({"fsdp"}), any_world=True)
    (tmp_path / LABEL).write_text(json.dumps({"schema": 99}))
    with pytest.raises(ConfigError, match="its format is 99"):
        check_label(tmp_path, "fsdp", 2, reads=own, any_world=True)


def test_a_folder_without_label_holds_nothing_to_resume_from(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing to resume from"):
        check_label(tmp_path, "single", 1, reads=frozenset({"single"}), any_world=True)


def test_an_index_that_names_something_else_is_not_read(tmp_path: Path) -> None:
    (tmp_path / ".metadata").write_bytes(pickle.dumps(print))
    with pytest.raises(ConfigError, match=r"names builtins\.print, which is no record"):
        Reader(tmp_path).read_metadata()
    (tmp_path / ".metadata").write_bytes(pickle.dumps(torch.float32))
    with (tmp_path / ".metadata").open("rb") as file:
        assert Records(file).load() is torch.float32


class ByGetattr:
    """Pickles as members of an enumeration do before Python 3.11.4."""

    def __init__(self, owner: object, name: str) -> None:
        self.call = getattr, (owner, name)

    def __reduce__(self) -> tuple[object, ...]:
        return self.call


def test_an_index_may_name_members_of_enumerations_as_older_pythons_do() -> None:
    found = pickle.dumps(ByGetattr(_MEM_FORMAT_ENCODING, "TORCH_PRESERVE_FORMAT"))
    assert Records(io.BytesIO(found)).load() is _MEM_FORMAT_ENCODING.TORCH_PRESERVE_FORMAT
    for owner, name in ((_MEM_FORMAT_ENCODING, "__class__"), (torch.Size, "__init__")):
        with pytest.raises(ConfigError, match="no member of an enumeration"):
            Records(io.BytesIO(pickle.dumps(ByGetattr(owner, name)))).load()


def test_a_torn_sharded_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no index, so it is torn"):
        Reader(tmp_path).read_metadata()


@pytest.mark.distributed
def test_a_file_of_deepspeeds_that_names_something_else_is_not_read(tmp_path: Path) -> None:
    torch.save({"x": print}, tmp_path / "states.pt")
    with pytest.raises(ConfigError, match="is not read"):
        Tensors(object()).load(str(tmp_path / "states.pt"))


@pytest.mark.distributed
def test_a_file_of_deepspeeds_may_name_members_of_enumerations_as_older_pythons_do(
    tmp_path: Path,
) -> None:
    from deepspeed.runtime.zero.config import ZeroStageEnum

    path = tmp_path / "states.pt"
    torch.save({"stage": ByGetattr(ZeroStageEnum, "weights")}, path)
    assert Tensors(object()).load(str(path)) == {"stage": ZeroStageEnum.weights}
    torch.save({"stage": ByGetattr(torch.Size, "__init__")}, path)
    with pytest.raises(ConfigError, match="no member of an enumeration"):
        Tensors(object()).load(str(path))
