"""Tiny language models of two architectures, their tokenizers, and rows to train them on."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from agentrl.core.protocols import Completion, Engine, SamplingParams
from agentrl.core.types import Json, Row
from agentrl.engines.policy import LoadedPolicy, load_policy
from agentrl.text.renderer import Plain
from agentrl.text.tokenizer import train_bpe

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Architecture = Literal["qwen3", "llama"]

TEXTS = (
    "go forward",
    "turn left",
    "turn right",
    "you see a red ball 2 steps ahead and a wall 3 steps to the left",
    "mission: go to the red ball",
)

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Only ever appends."""

TRIMMING = CHATML.replace("m.content", "m.content | trim")
"""Takes the white space off both ends of every message."""

FORGETTING = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and not loop.last %}{{ m.content.split('</think>')[-1] }}"
    "{% else %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Drops the reasoning of earlier replies."""

NO_SYSTEM = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('no system role here') }}{% endif %}"
    + CHATML
)
"""Refuses system messages."""


def bpe(chat_template: str | None = None) -> PreTrainedTokenizerBase:
    """A byte-level BPE with role marks; with a template also with ChatML's two marks."""
    tokenizer = train_bpe(TEXTS, 300)
    if chat_template is not None:
        tokenizer.add_tokens(["<|im_start|>", "<|im_end|>"], special_tokens=True)
        tokenizer.chat_template = chat_template
    return tokenizer


def settings(*, tied: bool = True) -> dict[str, Json]:
    """A transformers config of two layers."""
    return {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "tie_word_embeddings": tied,
        "max_position_embeddings": 256,
    }


def save_model(
    folder: Path,
    architecture: Architecture = "llama",
    chat_template: str | None = CHATML,
    *,
    tied: bool = True,
    seed: int = 0,
) -> Path:
    """A Hugging Face folder that `model=FOLDER` loads."""
    tokenizer = bpe(chat_template)
    config = AutoConfig.for_model(
        architecture,
        **settings(tied=tied),
        vocab_size=len(tokenizer),
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def tiny_policy(seed: int = 0, **changes: Json) -> LoadedPolicy:
    """A Qwen3-shaped model with random weights, built from a config."""
    config: dict[str, Json] = {"model_type": "qwen3", **settings(), **changes}
    return load_policy(config, seed=seed, device="cpu", tokenizer=bpe())


def trained_policy(seed: int = 0, steps: int = 40) -> LoadedPolicy:
    """A tiny policy after a few steps on repetitive dialogues: peaked, and it ends its replies."""
    policy = tiny_policy(seed)
    rows = [row_of(policy, "wall ahead", "turn left"), row_of(policy, "red ball", "go forward")]
    optimiser = torch.optim.AdamW(policy.module.parameters(), lr=1e-2)
    policy.module.train()
    for _ in range(steps):
        optimiser.zero_grad()
        torch.stack([nll(policy.module, row) for row in rows]).sum().backward()
        optimiser.step()
    policy.module.zero_grad()
    policy.module.eval()
    return policy


def nll(module: torch.nn.Module, row: Row) -> torch.Tensor:
    """Mean negative log-likelihood of a row's masked tokens, by a plain forward of it alone."""
    return -logprobs(module, row.ids)[torch.tensor(row.mask)[1:]].mean()


def logprobs(module: torch.nn.Module, ids: Sequence[int], temperature: float = 1.0) -> torch.Tensor:
    """`[T-1]` logprobs of `ids[1:]`, by a plain forward without padding, cache or batch."""
    ids_1T = torch.tensor([list(ids)])
    logp_TV: torch.Tensor = (
        module(input_ids=ids_1T).logits[0, :-1].float() / temperature
    ).log_softmax(-1)
    return logp_TV.gather(1, ids_1T[0, 1:, None])[:, 0]


def row_of(policy: LoadedPolicy, *texts: str, trajectory: int = 0, group: int = 0) -> Row:
    """A row of alternating observations and replies in the plain format."""
    plain = Plain(policy.tokenizer)
    known = policy.tokenizer.get_vocab()
    ids: list[int] = []
    mask: list[bool] = []
    for i, text in enumerate(texts):
        words = plain.reply(text)
        if i % 2 == 0:
            words = (known["<|user|>"], *words[:-1], known["<|assistant|>"])
        ids.extend(words)
        mask.extend([i % 2 == 1] * len(words))
    return row(ids, mask, trajectory=trajectory, group=group)


def row(
    ids: Sequence[int],
    mask: Sequence[bool],
    *,
    trajectory: int = 0,
    group: int = 0,
    temperature: float = 1.0,
) -> Row:
    """A row whose turns are the runs of its mask."""
    turn, turn_of = -1, []
    for t, is_sampled in enumerate(mask):
        turn += is_sampled and not mask[t - 1]
        turn_of.append(turn if is_sampled else -1)
    return Row(
        ids=tuple(ids),
        mask=tuple(mask),
        inherited=(False,) * len(ids),
        sampler_logprobs=(0.0,) * len(ids),
        turn_of=tuple(turn_of),
        versions=tuple(0 if m else -1 for m in mask),
        trajectory=trajectory,
        group=group,
        temperature=temperature,
    )


def sample(
    engine: Engine,
    policy: LoadedPolicy,
    prompts: Sequence[Sequence[int]],
    params: Sequence[SamplingParams],
) -> list[Completion]:
    """One completion for each prompt, asked for at the same time."""

    async def ask() -> list[Completion]:
        await engine.start(policy)
        try:
            return await asyncio.gather(
                *(
                    engine.generate(prompt, param, episode=i, group=0)
                    for i, (prompt, param) in enumerate(zip(prompts, params, strict=True))
                )
            )
        finally:
            await engine.close()

    return asyncio.run(ask())


@cache
def shared_policy() -> LoadedPolicy:
    """One trained policy for tests that only look at it."""
    return trained_policy()
