"""The byte-level BPE of models that are built from a config."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from agentrl.core.errors import ConfigError
from agentrl.text.tokenizer import MARKS, train_bpe
from support.models import TEXTS, bpe

BPE = bpe()


@given(st.text(st.characters(codec="utf-8")))
def test_any_text_survives(text: str) -> None:
    ids = BPE.encode(text, add_special_tokens=False, split_special_tokens=True)
    assert BPE.decode(ids) == text


def test_the_vocabulary_is_a_limit_and_holds_the_bytes_and_the_marks() -> None:
    vocabulary = BPE.get_vocab()
    assert len(BPE) == len(vocabulary) <= 300
    assert len(train_bpe(TEXTS, 262)) == 262
    assert [vocabulary[mark] for mark in MARKS] == list(range(len(MARKS)))
    assert (BPE.pad_token, BPE.eos_token) == MARKS[:2]


def test_a_vocabulary_without_room_for_the_bytes_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"tokenizer\.vocabulary: expected at least 262 .* 261"):
        train_bpe(TEXTS, 261)


def test_what_the_texts_repeat_becomes_short() -> None:
    trained = train_bpe(["turn left"] * 20, 300)
    assert len(trained.encode("turn left")) == 2
    assert len(trained.encode("ztrz qft")) == 8


def test_the_same_texts_give_the_same_tokenizer() -> None:
    assert train_bpe(TEXTS, 300).get_vocab() == bpe().get_vocab()


def test_a_saved_tokenizer_loads_as_it_was(tmp_path: Path) -> None:
    BPE.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    text = "go  forward, don't ! <|end|> é"
    for split in (False, True):
        assert loaded.encode(text, split_special_tokens=split) == BPE.encode(
            text, split_special_tokens=split
        )
    ids = loaded.encode(text, split_special_tokens=True)
    assert loaded.decode(ids) == text
    assert loaded.chat_template is None
