"""Messages to token ids, once, and only by appending.

`plain` writes one-token role marks round each message, for models built from a config. `template`
follows the tokenizer's chat template. The row so far (the last prompt and what was sampled) is kept
by its ids wherever the rendering with the new messages begins with the rendering without them and
the reply; only what comes behind is encoded. Where the template rewrote history, the rendering is
encoded afresh, which opens a new row (`rollout/fold.py`). `append` is `template` for those who want
to keep such a history: it never looks back.

Sampled ids are never re-encoded: `plain` writes a reply by the ids that it came in, `template`
keeps the row that holds them. Control tokens that an observation spells out stay text in all of
them.

Stop ids, which end a reply: the tokenizer's eos, the special token that the template writes behind
a reply (its end of turn), and those of the model's generation_config. Whichever was sampled is part
of the reply and is trained. If the template writes another one in its place, the history is not
what was sampled and a new row is opened; if none was sampled (a cut-off), the template's own
follows as part of the next prompt, untrained.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from agentrl.core.errors import ConfigError
from agentrl.core.protocols import Renderer
from agentrl.core.registry import find, register
from agentrl.core.types import Json, Message
from agentrl.text.spelling import Spelling
from agentrl.text.tokenizer import MARKS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PROBE = "agentrl probe reply"
PROBE_TOOL: Mapping[str, Json] = {
    "type": "function",
    "function": {
        "name": "agentrl_probe_tool",
        "description": "A probe.",
        "parameters": {"type": "object", "properties": {}},
    },
}
KNOWN_PROMPTS = 1024
"""Prompts that a template remembers to have rendered; those forgotten are found out again."""

Chat = tuple[Message, ...]


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

    takes_tools = False

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        known = tokenizer.get_vocab()
        missing = [mark for mark in MARKS if mark not in known]
        if missing:
            raise ConfigError(
                f"renderer: 'plain' needs the tokens {', '.join(missing)}, which this tokenizer "
                "does not have; use renderer=template, or a model built from a config"
            )
        self.tokenizer = tokenizer
        self._spelling = Spelling(tokenizer)
        self._mark = {mark[2:-2]: known[mark] for mark in MARKS}
        self.stop_ids = frozenset({known["<|end|>"]})
        self.encode = lru_cache(maxsize=8192)(self._encode_text)

    def _encode_text(self, text: str) -> tuple[int, ...]:
        """Ids of plain text: a mark spelt in it stays text."""
        return tuple(
            self.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
        )

    def prompt(
        self,
        messages: Sequence[Message],
        after: Sequence[int] = (),
        tools: Sequence[Mapping[str, Json]] = (),
    ) -> tuple[int, ...]:
        """The marked messages, then the assistant's mark."""
        ids: list[int] = []
        for message in messages:
            ids.append(self._mark[message.role])
            ids.extend(self.encode(message.text) if message.ids is None else message.ids)
            if message.role == "assistant" and ids[-1] not in self.stop_ids:
                ids.append(self._mark["end"])
        ids.append(self._mark["assistant"])
        return tuple(ids)

    def reply(self, text: str) -> tuple[int, ...]:
        """The text and `<|end|>`."""
        return (*self.encode(text), self._mark["end"])

    def text(self, ids: Sequence[int]) -> str:
        """The sampled text without its end."""
        return self._spelling.decode(_without_stop(ids, self.stop_ids))


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
        self._spelling = Spelling(tokenizer)
        self.stop_ids: frozenset[int] = frozenset()
        self._rendering = lru_cache(maxsize=KNOWN_PROMPTS)(self._render)
        self._words = lru_cache(maxsize=8 * KNOWN_PROMPTS)(self._shielded)
        self._known: dict[tuple[tuple[int, ...], str], None] = {}
        self._has_tool_role = self._shows([{"role": "tool", "content": PROBE}], None)
        self.takes_tools = self._shows([], [PROBE_TOOL])
        self.end_of_turn = self._find_end_of_turn()
        self._reply_opens = self._find_opening()
        ends = [self.end_of_turn, tokenizer.eos_token_id]
        self.stop_ids = frozenset(i for i in ends if i is not None)

    def _shows(self, more: list[dict[str, str]], tools: list[Mapping[str, Json]] | None) -> bool:
        """Whether the template takes these messages or tools, and they can be seen."""
        chat = [{"role": "user", "content": "hi"}]
        if more:
            chat += [{"role": "assistant", "content": "hello"}, *more]
        try:
            text = self._apply(chat, tools, reply=True)
        except ConfigError:
            return False
        return (PROBE if more else "agentrl_probe_tool") in text

    def _find_end_of_turn(self) -> int | None:
        """The special token that the template writes right behind a reply, if it does."""
        chat = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": PROBE}]
        text = self._apply(chat, None, reply=False)
        place = text.lower().rfind(PROBE)  # some templates change the case of what was said
        tail = self._spelling.whole(text[place + len(PROBE) :].lstrip()) if place >= 0 else ()
        return tail[0] if tail and tail[0] in self.tokenizer.added_tokens_decoder else None

    def _find_opening(self) -> str:
        """The control token that stands right before a reply; empty for other text."""
        text = self._apply([{"role": "user", "content": "hi"}], None, reply=True)
        last = self._spelling.whole(text)[-1:]
        return next((self._spelling.name(i) for i in last if self._spelling.is_control(i)), "")

    def _apply(
        self,
        chat: list[dict[str, str]],
        tools: list[Mapping[str, Json]] | None,
        *,
        reply: bool,
    ) -> str:
        from jinja2 import TemplateError

        try:
            return str(
                self.tokenizer.apply_chat_template(
                    chat,
                    tools=tools,  # type: ignore[arg-type]
                    tokenize=False,
                    add_generation_prompt=reply,
                )
            )
        except TemplateError as error:
            roles = ", ".join(dict.fromkeys(message["role"] for message in chat))
            raise ConfigError(
                f"renderer: the chat template refuses messages of the roles {roles}: {error}; "
                "where it has no system role, set actions.system= (empty)"
            ) from error

    def _render(self, chat: Chat, tools: str = "") -> str:
        """The template's text, in which control tokens that observations spell are shielded."""
        return self._apply(self._said(chat), json.loads(tools or "null"), reply=True)

    def _said(self, chat: Chat) -> list[dict[str, str]]:
        """The messages as templates take them. Where there is no tool role, what tools answer is
        said by the user, all answers to one reply in one message."""
        said: list[dict[str, str]] = []
        previous = ""
        for message in chat:
            text = self._words(message)
            is_borrowed = message.role == "tool" and not self._has_tool_role
            if is_borrowed and previous == "tool":
                said[-1]["content"] += f"\n{text}"
            else:
                role = "user" if is_borrowed else message.role
                said.append({"role": role, "content": text})
            previous = message.role
        return said

    def _shielded(self, message: Message) -> str:
        """What is said in a message; only the system may spell control tokens."""
        shield = self._spelling.shield
        if message.ids is not None:
            return self._spelling.said(_without_stop(message.ids, self.stop_ids))
        is_trusted = message.role == "system"
        return shield.escape(message.text) if is_trusted else shield.put_on(message.text)

    def encode(self, text: str) -> tuple[int, ...]:
        """Ids of text that stands inside a reply."""
        return self._spelling.middle(self._spelling.shield.escape(text))

    def prompt(
        self,
        messages: Sequence[Message],
        after: Sequence[int] = (),
        tools: Sequence[Mapping[str, Json]] = (),
    ) -> tuple[int, ...]:
        """The row so far and the encoded increment, or a fresh rendering."""
        chat = tuple(messages)
        listed = json.dumps(list(tools)) if tools else ""
        ids = self._continued(tuple(after), chat, listed) if after else None
        text = self._rendering(chat, listed)
        if ids is None:
            ids = self._spelling.whole(text)
        self._remember(ids, text)
        return ids

    def _remember(self, ids: tuple[int, ...], text: str) -> None:
        self._known[ids, text] = None
        if len(self._known) > KNOWN_PROMPTS:
            del self._known[next(iter(self._known))]

    def _continued(self, after: tuple[int, ...], chat: Chat, tools: str) -> tuple[int, ...] | None:
        """The prompt for `chat` that begins with the row so far; None if there is none."""
        place = _last_reply(chat)
        reply = chat[place].ids if place else None
        if not place or not reply or after[-len(reply) :] != reply:
            return None
        try:
            is_same = self._is_prompt(after[: -len(reply)], chat[:place], tools)
        except ConfigError:  # a context policy's messages may make no chat without the latest ones
            is_same = False
        added = self._added(chat, place, tools) if is_same else None
        return None if added is None else after + added

    def _is_prompt(self, ids: tuple[int, ...], chat: Chat, tools: str) -> bool:
        """Whether `ids` are a prompt for `chat`: its fresh rendering, or one grown from a shorter
        prompt by replies and increments."""
        while (ids, text := self._rendering(chat, tools)) not in self._known:
            if ids == self._spelling.whole(text):
                break
            place = _last_reply(chat)
            reply = chat[place].ids if place else None
            added = self._added(chat, place, tools) if place and reply else None
            if not place or not reply or added is None:
                return False
            tail = reply + added
            if ids[-len(tail) :] != tail:
                return False
            ids, chat = ids[: -len(tail)], chat[:place]
        return True

    def _added(self, chat: Chat, place: int, tools: str) -> tuple[int, ...] | None:
        """What the template adds behind the reply at `place`, which is the last one; None if it
        rewrote that reply or anything before it."""
        start = self._rendering(chat[:place], tools)
        reply = chat[place].ids or ()
        start += self._spelling.said(_without_stop(reply, self.stop_ids))
        text = self._rendering(chat, tools)
        if not text.startswith(start):
            return None
        rest = text[len(start) :]
        end = self._spelling.name(reply[-1]) if reply[-1] in self.stop_ids else ""
        return self._spelling.middle(rest[len(end) :], end) if rest.startswith(end) else None

    def reply(self, text: str) -> tuple[int, ...]:
        """The text and the template's end of turn (eos where it writes none)."""
        end = self.end_of_turn if self.end_of_turn is not None else self.tokenizer.eos_token_id
        ids = self._spelling.middle(self._spelling.shield.escape(text), self._reply_opens)
        return (*ids, *(() if end is None else (int(end),)))

    def text(self, ids: Sequence[int]) -> str:
        """The sampled text without its end."""
        return self._spelling.decode(_without_stop(ids, self.stop_ids))


@register("renderer", "append")
class Append(Template):
    """The tokenizer's chat template, but a reply once sampled stays in the history as it is.

    For templates that rewrite history (drop earlier reasoning, say): what follows a reply is
    rendered behind a stand-in for all that came before, so that an episode stays one row and the
    model goes on seeing what it thought. Templates that look back further than that (that number
    the turns, say) are better served by `template`.
    """

    def _added(self, chat: Chat, place: int, tools: str) -> tuple[int, ...] | None:
        stand_in = (Message(role="user", text="hi"), Message(role="assistant", text=PROBE))
        _, found, rest = self._rendering((*stand_in, *chat[place + 1 :]), "").partition(PROBE)
        if not found:
            return None
        reply = chat[place].ids or ()
        end = self._spelling.name(reply[-1]) if reply[-1] in self.stop_ids else ""
        return self._spelling.middle(rest.removeprefix(end), end)


def _last_reply(chat: Chat) -> int | None:
    """The place of the last sampled reply."""
    places = range(len(chat) - 1, -1, -1)
    return next((i for i in places if chat[i].role == "assistant" and chat[i].ids), None)


def _without_stop(ids: Sequence[int], stop_ids: frozenset[int]) -> Sequence[int]:
    """The ids without the stop id that ends them, if one does."""
    return ids[:-1] if ids and ids[-1] in stop_ids else ids
