"""The embedded engine after a push, with adapters, and with models of many architectures."""

import asyncio

import pytest
import torch

from agentrl.core.config import Lora
from agentrl.core.protocols import Completion
from agentrl.core.types import Json
from agentrl.engines.generate import Generate
from agentrl.engines.policy import LoadedPolicy, load_policy
from agentrl.engines.transformers import Transformers
from agentrl.train.lora import add_lora
from support.conversing import (
    POLICY,
    PROMPTS,
    History,
    alike,
    params,
    play,
)
from support.models import bpe, logprobs, row_of, settings, tiny_policy


def test_a_push_drops_what_was_computed_and_tokens_tell_their_version() -> None:
    policy = tiny_policy(seed=4)
    other = {name: tensor + 0.05 for name, tensor in policy.module.state_dict().items()}
    prompt = PROMPTS[3]
    calm: dict[str, object] = {"temperature": 1.0, "max_tokens": 100, "stop_ids": frozenset()}

    async def ask() -> tuple[Completion, Completion]:
        engine = Transformers()
        await engine.start(policy)
        await engine.load_weights({}, 6)
        going = asyncio.create_task(engine.generate(prompt, params(**calm), episode=0, group=0))
        before = engine.stats.sampled
        while engine.stats.sampled < before + 5:
            await asyncio.sleep(0.001)
        await engine.load_weights(other, 7)
        first = await going
        return first, await engine.generate((*prompt, *first.ids), params(), episode=0, group=0)

    first, second = asyncio.run(ask())
    (old, n), (new, m) = first.versions
    assert (old, new, n + m) == (6, 7, 100)
    with torch.no_grad():  # the later tokens are the new weights', over the whole history
        every = logprobs(policy.module, (*prompt, *first.ids)).tolist()[len(prompt) - 1 :]
    assert first.logprobs[n:] == pytest.approx(every[n:], abs=1e-5)
    assert first.logprobs[:n] != pytest.approx(every[:n], abs=1e-3)
    alike([second], pushed(policy, (*prompt, *first.ids)))


@pytest.mark.parametrize("keep_kv", [False, True])
def test_what_was_computed_is_computed_anew_after_a_push_unless_it_is_kept(keep_kv: bool) -> None:
    policy = tiny_policy(seed=4)
    other = {name: tensor + 0.05 for name, tensor in policy.module.state_dict().items()}
    prompt = PROMPTS[3]

    async def ask() -> tuple[int, Completion]:
        engine = Transformers(keep_kv=keep_kv)
        await engine.start(policy)
        first = await engine.generate(prompt, params(), episode=0, group=0)
        before = engine.stats.prefilled
        await engine.load_weights(other, 1)
        longer = (*prompt, *first.ids)
        second = await engine.generate(longer, params(), episode=0, group=0)
        return engine.stats.prefilled - before, second

    computed, second = asyncio.run(ask())
    assert (computed > len(prompt)) is not keep_kv
    assert [version for version, _ in second.versions] == [1]


def pushed(policy: LoadedPolicy, prompt: History) -> list[Completion]:
    async def ask() -> list[Completion]:
        engine = Generate()
        await engine.start(policy)
        await engine.load_weights({}, 7)
        return [await engine.generate(prompt, params(), episode=0, group=0)]

    return asyncio.run(ask())


def test_the_probe_goes_through_slots() -> None:
    ids = row_of(POLICY, "wall ahead", "turn left", "red ball", "go forward").ids

    async def ask(length: int) -> list[float]:
        engine = Transformers()
        await engine.start(POLICY)
        return await engine.probe(ids[:length])

    with torch.no_grad():
        expected = logprobs(POLICY.module, ids).tolist()
    for length in (2, 3, len(ids)):
        assert asyncio.run(ask(length)) == pytest.approx(expected[: length - 1], abs=1e-5)


def test_memory_goes_back_with_the_last_episode() -> None:
    async def ask() -> list[bool]:
        engine = Transformers()
        await engine.start(POLICY)
        held = []
        for n in range(2):
            await engine.generate(PROMPTS[n], params(), episode=n, group=0)
        for n in range(2):
            held.append(engine._sampler.batch.pool is not None)  # type: ignore[union-attr]
            await engine.end(n)
        await engine.load_weights({}, 1)  # the thread has done what came before
        held.append(engine._sampler.batch.pool is not None)  # type: ignore[union-attr]
        return held

    assert asyncio.run(ask()) == [True, True, False]


def test_a_model_with_adapters_samples_with_them() -> None:
    policy = tiny_policy(seed=5)
    policy.module = add_lora(policy.module, Lora(rank=4), seed=1)
    with torch.no_grad():
        for name, weight in policy.module.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.3)
    engine = Transformers()
    answers = play(engine, PROMPTS[:4], policy)
    assert engine.stats.reused
    alike(answers, play(Generate(), PROMPTS[:4], policy))
    with policy.module.disable_adapter():  # type: ignore[operator]
        assert play(Transformers(), PROMPTS[:4], policy) != answers


QWEN3 = settings()
QWEN2 = {key: value for key, value in QWEN3.items() if key != "head_dim"}


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "llama", **settings(tied=False)},
        {"model_type": "qwen2", **QWEN2},
        {"model_type": "qwen3", **QWEN3, "head_dim": 24, "num_key_value_heads": 1},
        {"model_type": "llama", **QWEN3, "num_key_value_heads": 4},
        {"model_type": "mistral", **QWEN3, "sliding_window": None},
        {"model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 2},
    ],
    ids=["llama-untied", "qwen2", "qwen3-one-key-head", "llama-mha", "mistral", "gpt2"],
)
def test_many_architectures_are_sampled_through_slots(config: dict[str, Json]) -> None:
    policy = load_policy(config, seed=2, device="cpu", tokenizer=bpe())
    prompts = [PROMPTS[n // 4] for n in range(8)]
    engine = Transformers()
    ours = play(engine, prompts, policy, turns=2, temperature=0.3)
    assert engine.stats.reused
    alike(ours, play(Generate(), prompts, policy, turns=2, temperature=0.3))


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"model_type": "mistral", **QWEN3, "sliding_window": 32}, "it sees a window of 32 tokens"),
        (
            {"model_type": "bloom", "hidden_size": 32, "n_layer": 1, "n_head": 2},
            "AttentionInterface",
        ),
    ],
    ids=["mistral", "bloom"],
)
def test_the_plain_engine_stands_in_and_that_is_said_once(
    config: dict[str, Json], why: str, caplog: pytest.LogCaptureFixture
) -> None:
    policy = load_policy(config, seed=2, device="cpu", tokenizer=bpe())
    engine = Transformers()
    for _ in range(2):
        ours = play(engine, PROMPTS[:4], policy, turns=2)
    alike(ours, play(Generate(), PROMPTS[:4], policy, turns=2))
    assert [why in record.message for record in caplog.records] == [True]
    assert "sampling with engine 'generate' instead" in caplog.text
