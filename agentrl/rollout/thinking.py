"""Replies that reason before they act: where the reasoning ends, and how a budget ends it."""

from __future__ import annotations

from collections.abc import Sequence

from agentrl.core.config import Thinking
from agentrl.core.protocols import Completion, Renderer
from agentrl.core.types import Forced

PROMPT_TAIL = 32
"""Tokens at the end of a prompt among which a template may have written the opening."""


def is_thinking(
    thinking: Thinking, renderer: Renderer, prompt_ids: Sequence[int], ids: Sequence[int]
) -> bool:
    """Whether a reply that goes so far is inside its reasoning."""
    text = renderer.text(ids) if ids else ""
    if thinking.closing in text:
        return False
    tail = renderer.text(prompt_ids[-PROMPT_TAIL:]).rstrip()
    return thinking.opening in text or tail.endswith(thinking.opening)


def answer_in(
    thinking: Thinking, renderer: Renderer, prompt_ids: Sequence[int], ids: Sequence[int]
) -> str | None:
    """The reply behind its reasoning; None if that never ended."""
    if is_thinking(thinking, renderer, prompt_ids, ids):
        return None
    return renderer.text(ids).rpartition(thinking.closing)[2]


def joined(thought: Completion, ending: tuple[int, ...], rest: Completion) -> Completion:
    """Two calls of an engine as one reply, with the tokens between them that nobody sampled."""
    has_versions = bool(thought.versions and rest.versions)
    return Completion(
        ids=thought.ids + rest.ids,
        logprobs=thought.logprobs + rest.logprobs,
        finish=rest.finish,
        versions=thought.versions + rest.versions if has_versions else (),
        forced=Forced(at=len(thought.ids), ids=ending) if ending else None,
    )
