"""Sampled tokens are trained as they came, whatever the template, the tokenizer and the reply.

How much was looked at is printed: `pytest tests/text/test_fidelity.py -rP` shows it.
"""

import sys

import pytest

from agentrl.core.types import Message
from agentrl.text.renderer import Template
from support.fuzz import fuzz
from support.templates import STYLES, TOKENIZERS


def test_fuzzed_episodes_keep_every_sampled_token() -> None:
    seen = fuzz(0, 600)
    sys.stdout.write(f"{seen}\n")
    assert seen.episodes >= 600
    for style, kind in STYLES.items():
        assert seen.splits[style] or not kind.rewrites, f"{style} never rewrote anything"
    assert seen.finishes["length"] > 100


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_ten_thousand_more_fuzzed_episodes_keep_every_sampled_token() -> None:
    seen = fuzz(600, 10_000)
    sys.stdout.write(f"{seen}\n")
    assert seen.episodes >= 10_000


def test_there_are_many_styles_and_tokenizers() -> None:
    assert len(STYLES) >= 12
    assert len(TOKENIZERS) >= 4


def test_a_renderer_that_encodes_its_history_again_is_caught(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Template, "_continued", lambda *_: None)
    with pytest.raises(AssertionError, match=r"turn \d"):
        fuzz(0, 50)


def test_a_renderer_that_keeps_a_history_which_the_template_rewrote_is_caught(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def trusting(
        self: Template, after: tuple[int, ...], chat: tuple[Message, ...], tools: str
    ) -> tuple[int, ...]:
        return (*after, *self.encode(chat[-1].text))

    monkeypatch.setattr(Template, "_continued", trusting)
    with pytest.raises(AssertionError):
        fuzz(5, 50)
