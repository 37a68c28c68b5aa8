"""Messages to token ids, once, and only by appending.

`plain` writes one-token role marks round each message, for models built from a config. `template`
follows the tokenizer's chat template: it renders all messages, and where the row so far is a prefix
of that rendering it encodes only what is new. Where the template rewrote history the rendering is
encoded afresh, which opens a new row (`rollout/fold.py`). Sampled ids are never re-encoded: `plain`
writes a reply by the ids that it came in, `template` keeps the row that holds them. Control tokens
that an observation spells out stay text in both.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from agentrl.core.errors import ConfigError
from agentrl.core.protocols import Renderer
from agentrl.core.registry import find, register
from agentrl.core.types import Message
from agentrl.text.tokenizer import MARKS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PROBE = "agentrl probe reply"


def build_renderer(
    name: str, tokenizer: PreTrainedTokenizerBase, stop_ids: frozenset[int] = frozenset()
) -> Renderer:
    """The renderer that `name` asks for; `auto` takes `template` where the tokenizer has one.

    Args:
        stop_ids: further ids that end a reply (a model's generation_config).

    Raises:
        ConfigError: the tokenizer lacks what the renderer needs.
    """
    if name == "auto":
        name = "template" if tokenizer.chat_template else "plain"
    renderer: Renderer = find("renderer", name)(tokenizer)
    renderer.stop_ids |= stop_ids
    return renderer


@register("renderer", "plain")
class Plain:
    """Role mark, then the text; a reply ends with `<|end|>`."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        known = tokenizer.get_vocab()
        missing = [mark for mark in MARKS if mark not in known]
        if missing:
            raise ConfigError(
                f"renderer: 'plain' needs the tokens {', '.join(missing)}, which this tokenizer "
                "does not have; use renderer=template, or a model built from a config"
            )
        self.tokenizer = tokenizer
        self._mark = {mark[2:-2]: known[mark] for mark in MARKS}
        self.stop_ids = frozenset({known["<|end|>"]})
        self._encode = lru_cache(maxsize=8192)(self._encode_text)

    def _encode_text(self, text: str) -> tuple[int, ...]:
        """Ids of plain text: a mark spelt in it stays text."""
        return tuple(
            self.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
        )

    def prompt(self, messages: Sequence[Message], after: Sequence[int] = ()) -> tuple[int, ...]:
        """The marked messages, then the assistant's mark."""
        ids: list[int] = []
        for message in messages:
            ids.append(self._mark[message.role])
            ids.extend(self._encode(message.text) if message.ids is None else message.ids)
            if message.role == "assistant" and ids[-1] not in self.stop_ids:
                ids.append(self._mark["end"])
        ids.append(self._mark["assistant"])
        return tuple(ids)

    def reply(self, text: str) -> tuple[int, ...]:
        """The text and `<|end|>`."""
        return (*self._encode(text), self._mark["end"])

    def text(self, ids: Sequence[int]) -> str:
        """The sampled text without its end."""
        return _decode_reply(self.tokenizer, ids, self.stop_ids)


@register("renderer", "template")
class Template:
    """The tokenizer's own chat template."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        if not tokenizer.chat_template:
            raise ConfigError(
                "renderer: 'template' needs a tokenizer with a chat template, and "
                f"{tokenizer.name_or_path or 'this tokenizer'} has none; add chat_template.jinja "
                "to the model folder, or use renderer=plain with a model built from a config"
            )
        self.tokenizer = tokenizer
        added = tokenizer.added_tokens_decoder.values()
        self._shield = _Shield([token.content for token in added if token.special])
        self.end_of_turn = self._find_end_of_turn()
        ends = [self.end_of_turn, tokenizer.eos_token_id]
        self.stop_ids = frozenset(i for i in ends if i is not None)

    def _find_end_of_turn(self) -> int | None:
        """The special token that the template writes right behind a reply, if it does."""
        text = self._render(
            [Message(role="user", text="hi"), Message(role="assistant", text=PROBE)], reply=False
        )
        tail = self._encode(text.rpartition(PROBE)[2].lstrip())
        return tail[0] if tail and tail[0] in self.tokenizer.added_tokens_decoder else None

    def _render(self, messages: Sequence[Message], *, reply: bool) -> str:
        """The template's text, in which control tokens that observations spell are shielded."""
        from jinja2 import TemplateError

        chat = [{"role": message.role, "content": self._said(message)} for message in messages]
        try:
            rendered = self.tokenizer.apply_chat_template(
                chat, tokenize=False, add_generation_prompt=reply
            )
        except TemplateError as error:
            roles = ", ".join(dict.fromkeys(message.role for message in messages))
            raise ConfigError(
                f"renderer: the chat template refuses messages of the roles {roles}: {error}; "
                "where it has no system role, set actions.system= (empty)"
            ) from error
        return str(rendered)

    def _said(self, message: Message) -> str:
        is_observed = message.role in ("user", "tool")
        return self._shield.put_on(message.text) if is_observed else message.text

    def _encode(self, text: str) -> tuple[int, ...]:
        ids: list[int] = []
        for part, is_shielded in self._shield.parts(text):
            ids.extend(
                self.tokenizer.encode(
                    part, add_special_tokens=False, split_special_tokens=is_shielded
                )
            )
        return tuple(ids)

    def prompt(self, messages: Sequence[Message], after: Sequence[int] = ()) -> tuple[int, ...]:
        """The row so far and the encoded increment, or a fresh rendering."""
        text = self._render(messages, reply=True)
        shown = str(
            self.tokenizer.decode(
                list(after), skip_special_tokens=False, clean_up_tokenization_spaces=False
            )
        )
        if after and self._shield.take_off(text).startswith(shown):
            return (*after, *self._encode(text[len(shown) :]))
        return self._encode(text)

    def reply(self, text: str) -> tuple[int, ...]:
        """The text and the template's end of turn (eos where it writes none)."""
        end = self.end_of_turn if self.end_of_turn is not None else self.tokenizer.eos_token_id
        return (*self._encode(text), *(() if end is None else (int(end),)))

    def text(self, ids: Sequence[int]) -> str:
        """The sampled text without its end."""
        return _decode_reply(self.tokenizer, ids, self.stop_ids)


class _Shield:
    """Marks control tokens that are only spelt out, so that they can be encoded as text.

    The first character of each is replaced by a code point that Unicode reserves for use inside a
    program; text keeps its length.
    """

    def __init__(self, controls: Sequence[str]) -> None:
        names = sorted(filter(None, controls), key=len, reverse=True)
        codes = {c: chr(0xFDD0 + i) for i, c in enumerate(sorted({name[0] for name in names}))}
        self._codes = str.maketrans(codes)
        self._firsts = str.maketrans({code: first for first, code in codes.items()})
        never = "(?!)"
        self._spelt = re.compile("|".join(map(re.escape, names)) or never)
        shielded = (re.escape(codes[name[0]] + name[1:]) for name in names)
        self._shielded = re.compile(f"({'|'.join(shielded) or never})")

    def put_on(self, text: str) -> str:
        """The text with every control token in it shielded."""
        return self._spelt.sub(lambda m: m[0][0].translate(self._codes) + m[0][1:], text)

    def take_off(self, text: str) -> str:
        """The text as it was."""
        return text.translate(self._firsts)

    def parts(self, text: str) -> list[tuple[str, bool]]:
        """The text in pieces, shields taken off, and whether each had one."""
        pieces = enumerate(self._shielded.split(text))
        return [(self.take_off(p) if i % 2 else p, i % 2 == 1) for i, p in pieces if p]


def _decode_reply(
    tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], stop_ids: frozenset[int]
) -> str:
    kept = [token for token in ids if token not in stop_ids]
    return str(
        tokenizer.decode(kept, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    )
