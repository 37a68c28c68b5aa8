"""Pushes into real vLLM servers: whatever a trainer changes, the server's logprobs follow."""

import asyncio
import copy
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model

from agentrl.core.errors import TrainingError
from agentrl.core.types import Completion, SamplingParams
from agentrl.engines.vllm.client import Client
from agentrl.engines.vllm.weights import (
    ADAPTER,
    Holds,
    PushError,
    adapter_only,
    merged,
    push,
    push_adapter,
)
from agentrl.train.sync import push as push_and_prove
from support.models import logprobs
from support.real_vllm import ANSWER_S, EXACT, GROUPS, Served, change

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(400)]

IDS = [3 + i * 7 % 250 for i in range(200)]
"""Several blocks of the prefix cache."""
COUNT = 700
"""Tokens that take longer than it takes to hear of a push."""


def generate(
    served: Served, ids: Sequence[int], count: int, model: str | None = None
) -> Completion:
    """Sample `count` tokens."""
    params = SamplingParams(temperature=1.0, max_tokens=count, seed=5)
    return served.run(lambda client: client.generate(ids, params, timeout_s=ANSWER_S), model)


def sampled_gap(module: torch.nn.Module, ids: Sequence[int], reply: Completion) -> float:
    """Largest difference (nats) between a reply's logprobs and the module's."""
    with torch.no_grad():
        ours = logprobs(module, [*ids, *reply.ids])[len(ids) - 1 :]
    return float((torch.tensor(reply.logprobs) - ours).abs().max())


def cache_hits(served: Served) -> float:
    """Prompt tokens that the server found in its prefix cache so far."""
    text = str(served.run(lambda client: client.get("/metrics", timeout_s=ANSWER_S)))
    return float(re.findall(r"^vllm:prefix_cache_hits_total\{.*\} (\S+)$", text, re.MULTILINE)[0])


def test_prompts_with_seeds_that_exceed_a_step_together_are_computed_whole(tied: Served) -> None:
    """In pieces they would end the CPU worker."""

    async def crowd(client: Client) -> list[Completion]:
        params = [SamplingParams(temperature=1.0, max_tokens=2, seed=i) for i in range(32)]
        return await asyncio.gather(
            *(
                client.generate([i, *IDS, *IDS, *IDS], one, timeout_s=ANSWER_S)
                for i, one in enumerate(params)
            )
        )

    assert len(tied.run(crowd)) == 32
    assert tied.server.is_alive


def test_a_server_agrees_with_the_trainer_from_the_start(tied: Served, untied: Served) -> None:
    for served in (tied, untied):
        assert served.gap(IDS) <= EXACT
        assert sampled_gap(served.module, IDS, generate(served, IDS, 20)) <= EXACT


@pytest.mark.parametrize(
    ("name", "group"),
    [
        (name, group)
        for name in ("tied", "untied")
        for group in (*GROUPS, "all")
        if (name, group) != ("tied", "head")  # which is its embedding
    ],
)
def test_whatever_group_of_weights_changes_the_server_follows(
    request: pytest.FixtureRequest, name: str, group: str
) -> None:
    served: Served = request.getfixturevalue(name)
    change(served.module, group)
    assert served.gap(IDS) > 100 * EXACT  # it matters
    version = served.push()
    assert served.gap(IDS) <= EXACT
    reply = generate(served, IDS, 20)
    assert sampled_gap(served.module, IDS, reply) <= EXACT
    assert reply.versions == ((version, 20),)


def test_an_embedding_changed_alone_is_seen_through_a_warm_prefix_cache(tied: Served) -> None:
    generate(tied, IDS, 2)
    before = cache_hits(tied)
    generate(tied, IDS, 2)
    assert cache_hits(tied) > before  # it is warm
    change(tied.module, "embeddings")
    tied.push()
    before = cache_hits(tied)
    reply = generate(tied, IDS, 20)
    assert cache_hits(tied) == before
    assert sampled_gap(tied.module, IDS, reply) <= EXACT


def test_thirty_pushes_of_everything_all_arrive(tied: Served) -> None:
    for _ in range(30):
        change(tied.module, size=0.01)
        tied.push()
        assert tied.gap(IDS) <= EXACT


@pytest.mark.parametrize("keep_kv", [False, True])
def test_requests_in_flight_go_on_with_the_new_weights_and_tell_which_token_is_whose(
    tied: Served, keep_kv: bool
) -> None:
    for _ in range(5):  # a server this fast may be through before it hears of the push
        tied.push()  # drops what an earlier round left in the prefix cache
        old, new = copy.deepcopy(tied.module), tied.module
        change(new, "all")
        tied.version += 1

        async def meanwhile(client: Client) -> list[Completion]:
            params = [SamplingParams(temperature=1.0, max_tokens=COUNT, seed=i) for i in range(16)]
            async with asyncio.TaskGroup() as group:
                asked = [
                    group.create_task(client.generate(IDS, one, timeout_s=ANSWER_S))
                    for one in params
                ]
                await asyncio.sleep(0.3)
                await push(
                    [client],
                    tied.module.state_dict(),
                    tied.version,
                    keep_kv=keep_kv,
                    timeout_s=ANSWER_S,
                )
            return [task.result() for task in asked]

        replies = [reply for reply in tied.run(meanwhile) if len(reply.versions) == 2]
        if replies:
            break
    assert replies
    for reply in replies:
        (before, first), (after, second) = reply.versions
        assert (before, after) == (tied.version - 1, tied.version)
        assert first + second == COUNT
        theirs = torch.tensor(reply.logprobs)
        with torch.no_grad():
            ours = [logprobs(module, [*IDS, *reply.ids])[len(IDS) - 1 :] for module in (old, new)]
        gaps = [(theirs - one).abs() for one in ours]
        assert float(gaps[0][:first].max()) <= EXACT
        assert float(gaps[0][first:].max()) > 100 * EXACT
        # Over a context that the new weights computed anew, their tokens are theirs alone.
        assert (float(gaps[1][first:].max()) <= EXACT) is not keep_kv


class Seat:
    """As much of an engine as `train/sync.py` asks for."""

    def __init__(self, client: Client) -> None:
        self.client = client

    async def load_weights(self, tensors: Mapping[str, torch.Tensor], version: int) -> None:
        await push([self.client], tensors, version, timeout_s=ANSWER_S)

    async def probe(self, ids: Sequence[int]) -> list[float]:
        return await self.client.probe(ids, timeout_s=ANSWER_S)


def prove(served: Served) -> float:
    """Push as a run does, parity probe included."""
    served.version += 1
    return served.run(
        lambda client: push_and_prove(
            Seat(client),  # type: ignore[arg-type]
            served.module,
            served.version,
            IDS[:64],
            tensors=served.module.state_dict(),
        )
    )


def test_without_our_repair_of_tied_heads_the_parity_probe_stops_the_run(tied: Served) -> None:
    tied.inside("agentrl_renew_heads", "no")
    change(tied.module, "embeddings")
    with pytest.raises(TrainingError, match="failed its parity probe"):
        prove(tied)
    tied.inside("agentrl_renew_heads", "yes")
    assert prove(tied) <= EXACT


def adapted(module: torch.nn.Module) -> PeftModel:
    """A copy with a LoRA adapter on every linear layer."""
    settings = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
    found = get_peft_model(copy.deepcopy(module), settings)
    assert isinstance(found, PeftModel)
    return found.eval()


def train_adapter(module: PeftModel) -> None:
    with torch.no_grad():
        for name, weight in module.named_parameters():
            if "lora_" in name:
                weight.add_(torch.randn_like(weight) * 0.2)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_adapters_are_swapped_without_touching_the_base_and_can_be_pushed_merged(
    tied: Served,
) -> None:
    module = adapted(tied.module)
    for _ in range(3):
        train_adapter(module)
        tied.version += 1
        tied.run(
            lambda client: push_adapter(
                [client], module.state_dict(), tied.version, alpha=8, timeout_s=ANSWER_S
            )
        )
        assert tied.gap(IDS, module) <= EXACT
        reply = generate(tied, IDS, 40, model=ADAPTER)
        assert sampled_gap(module, IDS, reply) <= EXACT
        assert reply.versions == ((tied.version, 40),)
        assert tied.gap(IDS) <= EXACT  # the base, by its own name
    tied.push(merged(module.state_dict(), alpha=8))
    tied.module.load_state_dict(
        {**tied.module.state_dict(), **merged(module.state_dict(), alpha=8)}
    )
    assert tied.gap(IDS) <= EXACT
    with pytest.raises(Exception, match="does not exist"):  # adapters go with the base they fit
        generate(tied, IDS, 1, model=ADAPTER)
    tied.version += 1
    tied.run(
        lambda client: push_adapter(
            [client], module.state_dict(), tied.version, alpha=8, timeout_s=ANSWER_S
        )
    )
    assert generate(tied, IDS, 1, model=ADAPTER).ids


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_the_adapters_file_has_the_names_that_peft_would_write(
    tmp_path: Path, tied: Served
) -> None:
    from safetensors.torch import load_file

    module = adapted(tied.module)
    module.save_pretrained(str(tmp_path))
    theirs = load_file(tmp_path / "adapter_model.safetensors")
    assert adapter_only(module.state_dict()).keys() == theirs.keys()


def test_a_push_that_lacks_weights_is_refused_and_the_server_is_not_used_until_it_starts_anew(
    untied: Served,
) -> None:
    whole = untied.module.state_dict()
    part = {name: tensor for name, tensor in whole.items() if "k_proj" not in name}
    with pytest.raises(PushError, match=r"lacks weights of 2 layers.*qkv_proj") as caught:
        untied.push(part)
    assert caught.value.failures[0].holds is Holds.MIXED
    assert not caught.value.failures[0].is_usable
    with pytest.raises(PushError, match="an earlier push failed half way"):
        untied.push()
    assert untied.run(lambda client: client.get("/is_paused", timeout_s=ANSWER_S)) == {
        "is_paused": True
    }
    untied.start()
    assert untied.gap(IDS) <= EXACT
    change(untied.module, "all")
    untied.push()
    assert untied.gap(IDS) <= EXACT
