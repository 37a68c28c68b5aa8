"""Text to ids and back for one tokenizer, wherever in a prompt the text stands.

Two things make this more than `encode` and `decode`. Some tokenizers treat the start of a text
specially (they put a space before it), so that a piece encoded alone is not what it would be inside
a prompt; such pieces are encoded behind an anchor that is cut off again. And control tokens that an
observation merely spells out must stay text; they are shielded until they are encoded.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ANCHORS = ("\n", ".", "x", "1 ")
"""Texts that a piece may be encoded behind; the first that does not melt into it is taken."""

FIRST_CODE, LAST_CODE = 0x10F000, 0x10F0FF
"""Private characters of the last plane: shields and, the last one, the escape."""
ESCAPED = 0x4E00
"""A private character that a text holds itself is written as the escape and a letter from here."""


class Spelling:
    """Encodes prompts and the pieces that are added to them; decodes sampled ids."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        added = tokenizer.added_tokens_decoder
        self._added = {i: token.content for i, token in added.items()}
        self._controls = {i: token.content for i, token in added.items() if token.special}
        self.shield = Shield(list(self._controls.values()))
        head, tail = ANCHORS[0], "x"
        self._is_positional = self._raw(head + tail) != self._raw(head) + self._raw(tail)
        self._middle = lru_cache(maxsize=8192)(self._encode_middle)

    def whole(self, text: str) -> tuple[int, ...]:
        """Ids of a (shielded) text that begins a prompt."""
        ids: list[int] = []
        for i, (part, is_shielded) in enumerate(self.shield.parts(text)):
            ids += self._behind_text(part, is_shielded) if i else self._raw(part, is_shielded)
        return tuple(ids)

    def middle(self, text: str, control: str = "") -> tuple[int, ...]:
        """Ids of a (shielded) text that stands behind other text, or behind the token `control`."""
        return self._middle(text, control)

    def _encode_middle(self, text: str, control: str) -> tuple[int, ...]:
        ids: list[int] = []
        for i, (part, is_shielded) in enumerate(self.shield.parts(text)):
            behind = None if i or not control else self._behind(control, part, is_shielded)
            ids += self._behind_text(part, is_shielded) if behind is None else behind
        return tuple(ids)

    def _raw(self, text: str, is_shielded: bool = False) -> list[int]:
        return list(
            self.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=is_shielded)
        )

    def _behind_text(self, text: str, is_shielded: bool) -> list[int]:
        for anchor in ANCHORS if self._is_positional else ():
            ids = self._behind(anchor, text, is_shielded)
            if ids is not None:
                return ids
        return self._raw(text, is_shielded)

    def _behind(self, anchor: str, text: str, is_shielded: bool) -> list[int] | None:
        """What `text` adds behind `anchor`; None if the two melt together."""
        head = self._raw(anchor)
        whole = self._raw(anchor + text, is_shielded)
        return whole[len(head) :] if whole[: len(head)] == head else None

    def is_control(self, token: int) -> bool:
        """Whether the token is a control token."""
        return token in self._controls

    def name(self, token: int) -> str:
        """The text of one token, as a template writes it."""
        return self._added[token] if token in self._added else self.decode([token])

    def decode(self, ids: Sequence[int]) -> str:
        """What the ids say, control tokens included."""
        return str(
            self.tokenizer.decode(
                list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False
            )
        )

    def said(self, ids: Sequence[int]) -> str:
        """The text of sampled ids for a template: control tokens that were sampled stay what they
        are, and those that were spelt out by other tokens are shielded."""
        text = self.decode(ids)
        if self.shield.count(text) == sum(token in self._controls for token in ids):
            return self.shield.escape(text)
        pieces: list[str] = []
        run: list[int] = []
        for token in ids:
            if token in self._controls:
                pieces += [self.shield.put_on(self.decode(run)), self._controls[token]]
                run = []
            else:
                run.append(token)
        return "".join([*pieces, self.shield.put_on(self.decode(run))])


class Shield:
    """Marks control tokens that are only spelt out, so that they can be encoded as text.

    The first character of each is replaced by a private one, whatever its case, since templates may
    change that. Where a text holds such a private character itself, an escape is put before it.
    """

    def __init__(self, controls: Sequence[str]) -> None:
        names = sorted(filter(None, controls), key=len, reverse=True)
        firsts = sorted({c for name in names for c in _cases(name[0])})
        codes = {first: chr(FIRST_CODE + i) for i, first in enumerate(firsts)}
        self._codes = str.maketrans(codes)
        self._firsts = {code: first for first, code in codes.items()}
        private = f"[{chr(FIRST_CODE)}-{chr(LAST_CODE)}]"
        self._private = re.compile(private)
        letters = f"[{chr(ESCAPED)}-{chr(ESCAPED + LAST_CODE - FIRST_CODE)}]"
        self._put = re.compile(f"{chr(LAST_CODE)}({letters})|{private}")
        never = "(?!)"
        spelt = "|".join(map(re.escape, names)) or never
        self._exact = re.compile(spelt)
        self._spelt = re.compile(spelt, re.IGNORECASE)
        shielded = (
            f"[{''.join(codes[c] for c in _cases(name[0]))}]{re.escape(name[1:])}" for name in names
        )
        self._shielded = re.compile(f"({'|'.join(shielded) or never})", re.IGNORECASE)

    def escape(self, text: str) -> str:
        """The text with its control tokens as they are."""
        return self._private.sub(
            lambda m: chr(LAST_CODE) + chr(ESCAPED + ord(m[0]) - FIRST_CODE), text
        )

    def put_on(self, text: str) -> str:
        """The text with every control token in it shielded."""
        return self._spelt.sub(
            lambda m: m[0][0].translate(self._codes) + m[0][1:], self.escape(text)
        )

    def count(self, text: str) -> int:
        """How many control tokens the text spells."""
        return len(self._exact.findall(text))

    def take_off(self, text: str) -> str:
        """The text as it was."""
        return self._put.sub(
            lambda m: (
                chr(FIRST_CODE + ord(m[1]) - ESCAPED) if m[1] else self._firsts.get(m[0], m[0])
            ),
            text,
        )

    def parts(self, text: str) -> list[tuple[str, bool]]:
        """The text in pieces, shields taken off, and whether each had one."""
        pieces = enumerate(self._shielded.split(text))
        return [(self.take_off(piece), i % 2 == 1) for i, piece in pieces if piece]


def _cases(letter: str) -> str:
    """A character in both cases, where each is one character."""
    return "".join(sorted({c for c in (letter, letter.lower(), letter.upper()) if len(c) == 1}))
