"""A tiny model that calls tools in a ChatML template of our own, as TRL's environments need one."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import torch

from agentrl.engines.policy import LoadedPolicy, load_policy
from agentrl.text.tokenizer import train_bpe
from support.models import settings

TEMPLATE = (
    "{% if tools %}<|im_start|>system\n"
    "{% for t in tools %}{{ t | tojson }}\n{% endfor %}<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "{% for c in m.tool_calls or [] %}<tool_call>"
    '{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}'
    "</tool_call>{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Only ever appends, and shows tools, calls and results."""

RESPONSE = {
    "defaults": {"role": "assistant"},
    "start_anchor": "<|im_start|>assistant\n",
    "fields": {
        "tool_calls": {
            "open": "<tool_call>",
            "close_pattern": r"</tool_call>\s*",
            "repeats": True,
            "content": "json",
            "transform": {"type": "function", "function": "{content}"},
        },
        "content": {"close_pattern": r"<\|im_end\|>\s*", "content": "text"},
    },
}
"""How transformers reads such a reply."""


def written(name: str, **arguments: object) -> str:
    """A call as the template writes it."""
    return f"<tool_call>{json.dumps({'name': name, 'arguments': arguments})}</tool_call>"


def calling_policy(
    tools: Sequence[Callable[..., object]],
    dialogues: Sequence[Sequence[tuple[str, str]]],
    *,
    steps: int,
    seed: int = 0,
) -> LoadedPolicy:
    """A tiny model that has learned these dialogues: pairs of what it is shown and its reply.

    The first of each is said by the user, the others by tools.
    """
    texts = [text for dialogue in dialogues for pair in dialogue for text in pair]
    tokenizer = train_bpe([*texts * 4, *(str(tool.__doc__) for tool in tools)], 400)
    tokenizer.add_tokens(
        ["<|im_start|>", "<|im_end|>", "<tool_call>", "</tool_call>"], special_tokens=True
    )
    tokenizer.chat_template = TEMPLATE
    tokenizer.response_template = RESPONSE
    tokenizer.eos_token = "<|im_end|>"
    policy = load_policy(
        {"model_type": "qwen3", **settings(), "max_position_embeddings": 1024},
        seed=seed,
        device="cpu",
        tokenizer=tokenizer,
    )
    rows = [_row(policy, tools, dialogue) for dialogue in dialogues]
    optimiser = torch.optim.AdamW(policy.module.parameters(), lr=1e-2)
    width = max(len(ids) for ids, _ in rows)
    ids_BT = torch.tensor([ids + [0] * (width - len(ids)) for ids, _ in rows])
    labels_BT = torch.tensor([labels + [-100] * (width - len(ids)) for ids, labels in rows])
    policy.module.train()
    for _ in range(steps):
        optimiser.zero_grad()
        loss: torch.Tensor = policy.module(input_ids=ids_BT, labels=labels_BT).loss
        loss.backward()
        optimiser.step()
    policy.module.zero_grad()
    policy.module.eval()
    return policy


def _row(
    policy: LoadedPolicy,
    tools: Sequence[Callable[..., object]],
    dialogue: Sequence[tuple[str, str]],
) -> tuple[list[int], list[int]]:
    """Ids, and labels on the replies alone; every piece is encoded by itself, as it is sampled."""
    tokenizer: Any = policy.tokenizer
    ids: list[int] = []
    labels: list[int] = []
    for i, (shown, reply) in enumerate(dialogue):
        text = tokenizer.apply_chat_template(
            [{"role": "tool" if i else "user", "content": shown}],
            tools=None if i else list(tools),
            add_generation_prompt=True,
            tokenize=False,
        )
        before = tokenizer.encode(("\n" if i else "") + text, add_special_tokens=False)
        after = tokenizer.encode(f"{reply}<|im_end|>", add_special_tokens=False)
        ids += before + after
        labels += [-100] * len(before) + after
    return ids, labels
