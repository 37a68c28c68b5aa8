"""What is pushed, where it lies meanwhile, and what a failed push leaves behind.

The server is the fake one; `test_real_weights.py` has the real one.
"""

import asyncio
import copy
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors import safe_open
from safetensors.torch import load_file

from agentrl.core.errors import EngineError
from agentrl.engines.vllm.client import Client
from agentrl.engines.vllm.weights import (
    Holds,
    PushError,
    SharedMemory,
    adapter_only,
    merged,
    push,
    push_adapter,
    untied,
    write_adapter,
)
from support.fake_vllm import FakeVllm, fake
from support.models import tiny_policy

T = TypeVar("T")
SOON_S = 10.0


def with_clients(servers: Sequence[FakeVllm], verb: Callable[[list[Client]], Awaitable[T]]) -> T:
    """Do something with a client of each server."""

    async def run() -> T:
        clients = [Client(server.url) for server in servers]
        try:
            return await verb(clients)
        finally:
            for client in clients:
                await client.close()

    return asyncio.run(run())


def written(
    tensors: Mapping[str, torch.Tensor], dtype: torch.dtype | None = None
) -> dict[str, torch.Tensor]:
    """What another reader finds in shared memory."""

    memory = SharedMemory()
    found = load_file(asyncio.run(memory.write(tensors, dtype)))
    memory.close()
    return found


# --- what is pushed -------------------------------------------------------------------------------


def test_every_type_and_layout_comes_back_as_it_was() -> None:
    tensors = {
        "a": torch.randn(3, 4).t(),  # not contiguous
        "b": torch.randn(5).bfloat16(),
        "c": torch.tensor(7.0),
        "d": torch.arange(6, dtype=torch.int64).reshape(2, 3),
        "e": torch.randn(0, 3),
        "f": torch.tensor([True, False]),
    }
    found = written(tensors)
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)


def test_only_what_floats_is_sent_in_another_type() -> None:
    found = written({"a": torch.ones(3), "b": torch.ones(3, dtype=torch.int32)}, dtype=torch.half)
    assert [found[name].dtype for name in "ab"] == [torch.half, torch.int32]


def test_tied_weights_are_sent_once_under_the_first_name() -> None:
    state = tiny_policy().module.state_dict()
    assert {"model.embed_tokens.weight", "lm_head.weight"} <= state.keys()
    assert state.keys() - untied(state).keys() == {"lm_head.weight"}
    apart = tiny_policy(tie_word_embeddings=False).module.state_dict()
    assert untied(apart).keys() == apart.keys()


def test_views_of_one_memory_that_differ_are_all_sent() -> None:
    whole = torch.randn(4, 4)
    assert untied({"a": whole, "b": whole[:2], "c": whole.t()}).keys() == {"a", "b", "c"}


def test_nothing_to_send_is_an_error() -> None:
    with pytest.raises(EngineError, match="no weights"):
        untied({})


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_merged_weights_are_those_of_peft(tmp_path: Path) -> None:
    module = tiny_policy().module
    settings = LoraConfig(r=4, lora_alpha=12, target_modules="all-linear", task_type="CAUSAL_LM")
    adapted = get_peft_model(copy.deepcopy(module), settings)
    for name, weight in adapted.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(weight)
    found = merged(adapted.state_dict(), alpha=12)
    write_adapter(tmp_path, adapter_only(adapted.state_dict()), 12)
    assert {path.name for path in tmp_path.iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    theirs = adapted.merge_and_unload().state_dict()
    assert found.keys() == theirs.keys() == module.state_dict().keys()
    for name, tensor in theirs.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-5, atol=1e-5)


def test_an_adapter_that_is_not_there_is_an_error() -> None:
    with pytest.raises(EngineError, match="the module has none"):
        asyncio.run(push_adapter([], tiny_policy().module.state_dict(), 1, alpha=8))


# --- where it lies --------------------------------------------------------------------------------


def test_shared_memory_is_gone_when_it_is_closed_or_forgotten(tmp_path: Path) -> None:
    for folder in (None, tmp_path):
        for is_closed in (True, False):
            memory = SharedMemory(folder)
            path = asyncio.run(memory.write({"a": torch.ones(3)}))
            with safe_open(path, framework="pt") as file:
                assert torch.equal(file.get_tensor("a"), torch.ones(3))
            if is_closed:
                memory.close()
                memory.close()
            del memory
            assert not path.exists()
    assert not list(tmp_path.iterdir())


def test_memory_is_used_again_as_long_as_the_tensors_are_alike() -> None:
    memory = SharedMemory()
    first = asyncio.run(memory.write({"a": torch.ones(3), "b": torch.zeros(2)}))
    again = asyncio.run(memory.write({"a": torch.zeros(3), "b": torch.ones(2)}))
    assert again == first
    assert torch.equal(load_file(again)["b"], torch.ones(2))
    larger = asyncio.run(memory.write({"a": torch.zeros(4)}))
    assert load_file(larger).keys() == {"a"}
    memory.close()


def test_memory_in_use_or_of_a_failed_push_is_not_written_to() -> None:
    policy = tiny_policy()
    state = policy.module.state_dict()
    memory = SharedMemory()
    taken = asyncio.run(memory.write({"a": torch.ones(3)}))
    memory.is_busy = True
    with fake(policy) as server:
        with_clients((server,), lambda clients: push(clients, state, 1, memory=memory))
        assert server.weights == "1"
        assert load_file(taken).keys() == {"a"}
        memory.is_busy = False
        server.hit("push fails")
        with pytest.raises(PushError):
            with_clients((server,), lambda clients: push(clients, state, 2, memory=memory))
    assert not taken.exists()


def test_a_folder_without_room_is_told_before_anything_is_sent(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 2**20}))
    huge = {"a": torch.empty(2**20)}  # 4 MiB
    with pytest.raises(EngineError, match="room for 1 MiB, and the weights take 4 MiB"):
        asyncio.run(push([], huge, 1, memory=SharedMemory(tmp_path)))


# --- what a failed push leaves --------------------------------------------------------------------


def test_one_server_that_fails_half_way_is_named_and_the_others_have_the_push() -> None:
    policy = tiny_policy()
    state = policy.module.state_dict()
    with fake(policy) as good, fake(policy) as bad:
        bad.hit("push fails")
        with pytest.raises(PushError, match=r"failed at 1 server.*CUDA out of memory") as caught:
            with_clients((good, bad), lambda clients: push(clients, state, 7, timeout_s=SOON_S))
        assert good.weights == "7"
        assert bad.weights == "default"
        [(index, failure)] = caught.value.failures.items()
        assert (index, failure.url) == (1, bad.url)
        assert failure.holds is Holds.MIXED
        assert not failure.is_usable
        assert bad.paths[-1] == "/update_weights"  # it was not resumed
        assert good.paths[-1] == "/resume"


def test_a_server_that_hangs_in_a_push_holds_nobody_knows_what() -> None:
    policy = tiny_policy()
    with fake(policy) as server:
        server.hit("push hangs")
        with pytest.raises(PushError, match="no answer within") as caught:
            with_clients(
                (server,),
                lambda clients: push(clients, policy.module.state_dict(), 1, timeout_s=0.5),
            )
    assert caught.value.failures[0].holds is Holds.UNKNOWN


def test_a_server_that_was_not_asked_yet_keeps_its_weights_and_goes_on() -> None:
    policy = tiny_policy()
    with fake(policy) as server:
        state = policy.module.state_dict()

        async def refuse(clients: list[Client]) -> None:
            clients[0].url += "/nowhere"
            await push(clients, state, 1, timeout_s=SOON_S)

        with pytest.raises(PushError, match="404") as caught:
            with_clients((server,), refuse)
        assert caught.value.failures[0].is_usable
        assert server.paths == ["/nowhere/pause", "/nowhere/resume"]
        with_clients((server,), lambda clients: push(clients, state, 2, timeout_s=SOON_S))
        assert server.weights == "2"
