"""What the benchmarks run: models by size, a tokenizer of words, episodes of seeded lengths.

The models are Qwen3-shaped with random weights, float32. Channel 0 of every embedding is one
constant, and the head reads it: that makes the end of a reply as likely as a benchmark wants, and
leaves all other words to chance. The model files of transformers stay as they are.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from agentrl.core.protocols import Env, RunsIn
from agentrl.core.registry import register
from agentrl.core.types import Action, Split, Step, Task
from agentrl.engines.policy import LoadedPolicy, policy_of
from agentrl.text.tokenizer import MARKS, train_bpe

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Shape:
    """The size of a model; heads are 32 or 64 wide, two of them to a key."""

    hidden: int
    inner: int
    layers: int
    heads: int


SIZES = {
    "0.65M": Shape(128, 320, 3, 4),
    "4M": Shape(256, 768, 5, 4),
    "12M": Shape(384, 1152, 7, 6),
    "33M": Shape(512, 1600, 10, 8),
    "90M": Shape(768, 2432, 12, 12),
}
LETTERS = "bcdfghjklmnprst"
WORDS = tuple(f" {a}{b}" for a in LETTERS for b in LETTERS)
"""Words that are one token each."""
TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}"
    "{% for c in m.tool_calls or [] %}{{ c.function.name }}{{ c.function.arguments | tojson }}"
    "{% endfor %}"
    "{% if m.role == 'assistant' %}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
RESPONSE = {
    "defaults": {"role": "assistant"},
    "start_anchor": "<|assistant|>",
    "fields": {
        "tool_calls": {
            "content": "text",
            "repeats": True,
            "transform": {
                "type": "function",
                "function": {"name": "act", "arguments": {"action": "{content}"}},
            },
        }
    },
}
"""How TRL reads a reply: all of it is the argument of the tool `act`."""
STEADY = 0.5
"""Channel 0 of every embedding."""
NEVER = -40.0
"""What is added to the logit of a token that is not to be sampled."""


def words_tokenizer() -> PreTrainedTokenizerBase:
    """A byte-level BPE in which each of `WORDS` is one token, with a template and a reader."""
    texts = ["".join(WORDS)] * 4
    tokenizer = train_bpe(texts, 256 + len(MARKS) + len(LETTERS) * (1 + len(LETTERS)))
    known = tokenizer.get_vocab()
    missing = [w for w in WORDS if w.replace(" ", "Ġ") not in known]
    if missing:
        raise ValueError(f"expected a token for each word, and {len(missing)} have none")
    tokenizer.chat_template = TEMPLATE
    tokenizer.response_template = RESPONSE
    return tokenizer


def word_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The token of each word."""
    known = tokenizer.get_vocab()
    return [known[word.replace(" ", "Ġ")] for word in WORDS]


def build(
    size: str,
    *,
    seed: int = 0,
    ends: float | None = None,
    plain: bool = False,
    vocabulary: int | None = None,
) -> LoadedPolicy:
    """A model with random weights that says only words.

    Args:
        ends: mean tokens of a reply, its end included; None for replies that never end.
        plain: the weights stay as they were drawn, and any token may be said.
        vocabulary: rows of the embedding, if more than the tokenizer has.
    """
    tokenizer, shape = words_tokenizer(), SIZES[size]
    config = AutoConfig.for_model(
        "qwen3",
        hidden_size=shape.hidden,
        intermediate_size=shape.inner,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads // 2,
        head_dim=shape.hidden // shape.heads,
        vocab_size=max(len(tokenizer), vocabulary or 0),
        tie_word_embeddings=False,
        max_position_embeddings=4096,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    module.eval()
    if not plain:
        _say_words(module, tokenizer, ends)
    return policy_of(module, tokenizer)


@torch.no_grad()
def _say_words(module: Any, tokenizer: PreTrainedTokenizerBase, ends: float | None) -> None:
    """Make the head read channel 0 so that only words and the end are sampled."""
    words, end = word_ids(tokenizer), int(tokenizer.eos_token_id or 0)
    module.get_input_embeddings().weight[:, 0] = STEADY
    for layer in module.base_model.layers:  # nothing is added to channel 0
        layer.self_attn.o_proj.weight[0] = 0.0
        layer.mlp.down_proj.weight[0] = 0.0
    head = module.get_output_embeddings().weight
    ids = torch.tensor([Random(0).choices(words, k=256)])
    hidden = module.base_model(input_ids=ids, use_cache=False).last_hidden_state[0]
    steady = float(hidden[:, 0].mean())
    head[:, 0] = NEVER / steady
    head[words, 0] = 0.0
    if ends is not None:
        logits = hidden @ head.T
        others = float(logits[:, words].logsumexp(-1).mean())
        wanted = others - math.log(ends - 1)
        head[end] = 0.0
        head[end, 0] = wanted / steady


@dataclass(frozen=True)
class Script:
    """An episode that is replayed: its prompt, how long each reply is, what the env then says."""

    group: int
    prompt: tuple[int, ...]
    replies: tuple[int, ...]
    observations: tuple[tuple[int, ...], ...]

    @property
    def useful(self) -> int:
        """Tokens that are sampled."""
        return sum(self.replies)


def scripts(
    tokenizer: PreTrainedTokenizerBase,
    *,
    seed: int,
    episodes: int = 64,
    group_size: int = 8,
    turns: int,
    uniform: bool = False,
) -> list[Script]:
    """Episodes of `turns` turns: prompts of 100-140 tokens shared by a group, replies geometric
    with mean 12 cut at 1-64 (or all of 12), observations of 25-55 tokens."""
    rng, words = Random(seed), word_ids(tokenizer)
    known = tokenizer.get_vocab()
    user, assistant = known["<|user|>"], known["<|assistant|>"]

    def said(low: int, high: int) -> tuple[int, ...]:
        return (user, *rng.choices(words, k=rng.randint(low, high) - 2), assistant)

    def length() -> int:
        drawn = 1 + int(math.log(1 - rng.random()) / math.log(1 - 1 / 12))
        return 12 if uniform else min(drawn, 64)

    found: list[Script] = []
    for group in range(episodes // group_size):
        prompt = said(100, 140)
        found += [
            Script(
                group=group,
                prompt=prompt,
                replies=tuple(length() for _ in range(turns)),
                observations=tuple(said(25, 55) for _ in range(turns - 1)),
            )
            for _ in range(group_size)
        ]
    return found


@dataclass(frozen=True)
class Bound:
    """What the arithmetic of a rollout costs if every distinct token is computed once."""

    flops: float
    kv_bytes: float

    def seconds(self, flops_per_s: float, bytes_per_s: float) -> float:
        """The least time: GEMMs at their peak, then keys and values read once a token."""
        return self.flops / flops_per_s + self.kv_bytes / bytes_per_s


def linear_flops(module: Any) -> tuple[int, int]:
    """FLOPs of a token in the body of the model, and in its head."""
    head = module.get_output_embeddings().weight.numel()
    inputs = module.get_input_embeddings().weight.numel()
    body = sum(p.numel() for p in module.parameters()) - head - inputs
    return 2 * body, 2 * head


def rollout_bound(policy: LoadedPolicy, played: Sequence[Script]) -> Bound:
    """Of scripts whose prompts are shared in a group."""
    config: Any = policy.module.config
    body, head = linear_flops(policy.module)
    width = config.num_attention_heads * config.head_dim
    kv_row = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * 4
    tokens = sampled = pairs = read = 0
    prompts = {script.group: len(script.prompt) for script in played}
    for length in prompts.values():
        tokens += length
        pairs += length * (length + 1) // 2
    for script in played:
        at = len(script.prompt)
        for turn, reply in enumerate(script.replies):
            for _ in range(reply):
                at += 1
                pairs, read = pairs + at, read + at
            tokens, sampled = tokens + reply, sampled + reply
            for _ in script.observations[turn] if turn < len(script.observations) else ():
                at += 1
                pairs += at
            if turn < len(script.observations):
                tokens += len(script.observations[turn])
    flops = tokens * body + sampled * head + 4 * width * config.num_hidden_layers * pairs
    return Bound(float(flops), float(read * kv_row))


def gemm_flops_per_s(tries: int = 2) -> float:
    """The best of a few 1024^3 matrix products, with the threads that torch has."""
    a, b = torch.rand(1024, 1024), torch.rand(1024, 1024)
    best = min(_timed(lambda: a @ b) for _ in range(tries + 1))
    return 2 * 1024**3 / best


def read_bytes_per_s(tries: int = 2) -> float:
    """The best of a few sums over 256 MiB."""
    block = torch.ones(64 * 2**20)
    return 4 * block.numel() / min(_timed(block.sum) for _ in range(tries + 1))


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


@register("env", "bench_words")
@dataclass(kw_only=True)
class Words(Env):
    """Says random words for a fixed number of turns; any action will do, and its length is paid."""

    runs_in: ClassVar[RunsIn] = "inline"

    turns: int = 2
    """Turns of an episode."""
    train_tasks: int = 64
    """Tasks of each split."""

    def tasks(self, split: Split) -> Sequence[Task]:
        """The same number for each split."""
        first = ("train", "dev", "test").index(split) * self.train_tasks
        seeds = range(first, first + self.train_tasks)
        return [Task(id=f"words/{seed}", seed=seed) for seed in seeds]

    def reset(self, task: Task) -> str:
        """98-138 words."""
        self._rng, self._turn = Random(task.seed), 0
        return "".join(self._rng.choices(WORDS, k=self._rng.randint(98, 138)))

    def step(self, action: Action) -> Step:
        """23-53 words."""
        self._turn += 1
        is_over = self._turn >= self.turns
        return Step(
            observation="".join(self._rng.choices(WORDS, k=self._rng.randint(23, 53))),
            reward=len(str(action)) % 7 / 7,
            terminated=is_over,
            info={"success": False} if is_over else {},
        )


@register("env", "bench_noop")
@dataclass(kw_only=True)
class Noop(Env):
    """Does nothing, and notes when."""

    runs_in: ClassVar[RunsIn] = "inline"
    turns: int = 32
    """Steps of an episode."""
    news: bool = True
    """Say something else each time."""

    def __post_init__(self) -> None:
        self._left = 0
        self._rng = Random(0)

    def tasks(self, split: Split) -> Sequence[Task]:
        """They differ by number alone."""
        return [Task(id=f"noop/{n}", seed=n) for n in range(10_000)]

    def reset(self, task: Task) -> str:
        """Begin."""
        self._left, self._ended = self.turns, 0.0
        return "go"

    def step(self, action: Action) -> Step:
        """Nothing."""
        began = time.perf_counter()
        if self._ended:
            GAPS.append(began - self._ended)
        self._left -= 1
        over = self._left == 0
        said = self.words() if self.news else "go"
        step = Step(observation=said, terminated=over, info={"success": True} if over else {})
        self._ended = time.perf_counter()
        return step

    def words(self) -> str:
        """Eight words, hardly ever the same ones."""
        return "".join(self._rng.choices(WORDS, k=8))


GAPS: list[float] = []
"""Seconds between the steps of an episode of `Noop`."""
