"""Tokenizers: the one a checkpoint brings, or a byte-level BPE trained on the run's own texts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from agentrl.core.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MARKS = ("<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>", "<|tool|>")
"""One-token role marks of config-built models; `<|end|>` ends a reply."""


def train_bpe(texts: Iterable[str], vocabulary: int) -> PreTrainedTokenizerBase:
    """A byte-level BPE of at most `vocabulary` ids, the marks included.

    Any text can be encoded, since the 256 bytes are always there; words that the texts repeat
    become single tokens.

    Raises:
        ConfigError: `vocabulary` has no room for the bytes and the marks.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    least = 256 + len(MARKS)
    if vocabulary < least:
        raise ConfigError(
            f"tokenizer.vocabulary: expected at least {least} (256 bytes and {len(MARKS)} marks), "
            f"got {vocabulary}"
        )
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(MARKS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    tokenizer: PreTrainedTokenizerBase = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token="<|pad|>",
        eos_token="<|end|>",
        additional_special_tokens=list(MARKS[2:]),
        clean_up_tokenization_spaces=False,
    )
    return tokenizer
