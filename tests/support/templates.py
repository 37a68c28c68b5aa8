"""Chat templates of many styles and tokenizers of several kinds, for tests of rendering.

Every tokenizer here has the same control tokens, so that each template goes with each of them.
`REWRITES` says what a style may change of what was said before; None for one that only appends.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

CONTROLS = ("<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|stop|>", "[INST]", "[/INST]")
TAGS = ("<think>", "</think>", "<tool_call>", "</tool_call>")
"""Added tokens that are no control tokens."""

TEXTS = (
    "go forward, then turn left and look at the red ball",
    "You see a wall 3 steps ahead. Remember the rules!",
    "user assistant system tool reply date 26 Jul 2024 [1] #0: #1: #2: #3: (dropped)",
    "<think> is it left? </think> turn right ### User: ### Assistant: \n\n",
)

OPEN = "<|im_start|>{{ m.role }}\n"
ASK = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"


def chatml(content: str = "{{ m.content }}", ask: str = ASK, head: str = "") -> str:
    """ChatML, with another way to write a message's content."""
    return f"{head}{{% for m in messages %}}{OPEN}{content}<|im_end|>\n{{% endfor %}}{ask}"


STRIPPED = (
    "{% if m.role == 'assistant' and not loop.last %}{{ m.content.split('</think>')[-1] }}"
    "{% else %}{{ m.content }}{% endif %}"
)
ALTERNATE = (
    "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate user and assistant') }}{% endif %}"
)
NO_SYSTEM = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
)


class Style(NamedTuple):
    """A way of writing chats."""

    template: str
    rewrites: bool
    """Whether it may change what was said before, beyond what a reply did itself."""
    has_system: bool = True
    has_tools: bool = True


STYLES: dict[str, Style] = {
    "appends": Style(chatml(), rewrites=False),
    "forgets_reasoning": Style(chatml(STRIPPED), rewrites=True),
    "trims": Style(chatml("{{ m.content | trim }}"), rewrites=True),
    "pads": Style(chatml(" {{ m.content }} \n"), rewrites=True),
    "ends_with_a_line": Style(chatml("{{ m.content + '\n' }}"), rewrites=True),
    "no_system": Style(chatml(head=NO_SYSTEM), rewrites=False, has_system=False),
    "system_into_user": Style(
        "{% set s = namespace(text='') %}{% for m in messages %}"
        "{% if m.role == 'system' %}{% set s.text = m.content + '\n\n' %}{% else %}"
        f"{OPEN}{{{{ (s.text if m.role == 'user' else '') + m.content }}}}<|im_end|>\n"
        "{% if m.role == 'user' %}{% set s.text = '' %}{% endif %}{% endif %}{% endfor %}" + ASK,
        rewrites=False,
    ),
    "merges_tools": Style(
        "{% for m in messages %}{% if m.role == 'tool' %}"
        "{% if messages[loop.index0 - 1].role != 'tool' %}<|im_start|>user{% endif %}"
        "\n<tool_response>\n{{ m.content }}\n</tool_response>"
        "{% if loop.last or messages[loop.index0 + 1].role != 'tool' %}<|im_end|>\n{% endif %}"
        f"{{% else %}}{OPEN}{{{{ m.content }}}}<|im_end|>\n{{% endif %}}{{% endfor %}}" + ASK,
        rewrites=False,
    ),
    "dated": Style(
        chatml(head="<|im_start|>system\nToday is {{ strftime_now('%d %b %Y') }}.<|im_end|>\n"),
        rewrites=False,
    ),
    "headers": Style(
        "{{ bos_token }}{% for m in messages %}<|im_start|>{{ m.role }}<|im_start|>\n\n"
        "{{ m.content | trim }}<|im_end|>{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant<|im_start|>\n\n{% endif %}",
        rewrites=True,
    ),
    "instructions": Style(
        "{{ bos_token }}{% for m in messages %}"
        + ALTERNATE
        + "{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
        "{% else %}{{ m.content }}</s>{% endif %}{% endfor %}",
        rewrites=False,
        has_system=False,
        has_tools=False,
    ),
    "model_role": Style(
        "{{ bos_token }}"
        + NO_SYSTEM
        + "{% for m in messages %}"
        + ALTERNATE
        + "<|im_start|>{{ 'model' if m.role == 'assistant' else m.role }}\n"
        "{{ m.content | trim }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>model\n{% endif %}",
        rewrites=True,
        has_system=False,
        has_tools=False,
    ),
    "tools_at_the_end": Style(
        chatml(
            "{{ m.content }}{% if tools and loop.last and m.role == 'user' %}\n{{ tools | tojson }}"
            "{% endif %}"
        ),
        rewrites=True,
    ),
    "drops_tool_results": Style(
        chatml(
            "{% if m.role == 'tool' and not loop.last %}(dropped)"
            "{% else %}{{ m.content }}{% endif %}"
        ),
        rewrites=True,
    ),
    "numbers_turns": Style(chatml("[{{ loop.index }}] {{ m.content }}"), rewrites=True),
    "reminds": Style(
        chatml("{{ m.content }}{% if loop.last and m.role != 'assistant' %} Remember!{% endif %}"),
        rewrites=True,
    ),
    "lower_cases": Style(
        chatml("{{ m.content if loop.last else m.content | lower }}"), rewrites=True
    ),
    "counts": Style(chatml(head="{{ messages | length }} messages\n"), rewrites=True),
    "no_end_of_turn": Style(
        "{% for m in messages %}### {{ m.role }}:\n{{ m.content }}\n\n{% endfor %}"
        "{% if add_generation_prompt %}### assistant:\n{% endif %}",
        rewrites=False,
    ),
    "ends_with_eos": Style(
        "{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m.content }}"
        "{{ eos_token if m.role == 'assistant' else '\n' }}{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}",
        rewrites=False,
    ),
    "opens_reasoning": Style(
        chatml(STRIPPED, ask=ASK.replace("assistant\n", "assistant\n<think>\n")), rewrites=True
    ),
    "skips_reasoning": Style(
        chatml(ask=ASK.replace("assistant\n", "assistant\n<think>\n\n</think>\n\n")), rewrites=True
    ),
}


def _finish(core: Tokenizer) -> PreTrainedTokenizerBase:
    from tokenizers import AddedToken
    from transformers import PreTrainedTokenizerFast

    tokenizer: PreTrainedTokenizerBase = PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        clean_up_tokenization_spaces=False,
    )
    tokenizer.add_tokens([AddedToken(c, special=True, normalized=False) for c in CONTROLS])
    tokenizer.add_tokens([AddedToken(t, special=False, normalized=False) for t in TAGS])
    return tokenizer


def _byte_level() -> PreTrainedTokenizerBase:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.train_from_iterator(
        TEXTS * 4,
        trainers.BpeTrainer(
            vocab_size=420,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return _finish(core)


def _normalised() -> PreTrainedTokenizerBase:
    from tokenizers import AddedToken, normalizers

    tokenizer = _byte_level()
    core = tokenizer.backend_tokenizer
    core.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.add_tokens([AddedToken("red ball", special=False, normalized=True)])
    tokenizer.add_tokens([AddedToken("<|side|>", special=True, rstrip=True, lstrip=True)])
    return tokenizer


def _metaspace(scheme: str) -> PreTrainedTokenizerBase:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    core = Tokenizer(models.BPE(unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=True)
    core.decoder = decoders.Sequence(
        [decoders.ByteFallback(), decoders.Metaspace(prepend_scheme=scheme, split=True)]
    )
    core.train_from_iterator(
        TEXTS * 4,
        trainers.BpeTrainer(vocab_size=250, special_tokens=["<unk>"], show_progress=False),
    )
    trained = json.loads(core.to_str())["model"]
    vocabulary = trained["vocab"]
    for byte in range(256):
        vocabulary[f"<0x{byte:02X}>"] = len(vocabulary)
    merges = [tuple(merge) for merge in trained["merges"]]
    core.model = models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True)
    return _finish(core)


def _words() -> PreTrainedTokenizerBase:
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    core = Tokenizer(models.WordLevel(unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.train_from_iterator(
        TEXTS, trainers.WordLevelTrainer(special_tokens=["<unk>"], show_progress=False)
    )
    return _finish(core)


_TOKENIZERS: dict[str, Callable[[], PreTrainedTokenizerBase]] = {
    "byte_level": _byte_level,
    "metaspace": lambda: _metaspace("always"),
    "metaspace_first": lambda: _metaspace("first"),
    "normalised": _normalised,
    "words": _words,
}
TOKENIZERS = tuple(_TOKENIZERS)


@cache
def _plain(kind: str) -> PreTrainedTokenizerBase:
    return _TOKENIZERS[kind]()


@cache
def tokenizer_of(kind: str, style: str) -> PreTrainedTokenizerBase:
    """A tokenizer of one kind with the template of one style."""
    tokenizer = deepcopy(_plain(kind))
    tokenizer.chat_template = STYLES[style].template
    return tokenizer
