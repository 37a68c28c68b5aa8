"""How a model of our own is asked: with the question itself, or as if it sat in its own seat."""

from __future__ import annotations

from typing import Literal

from agentrl.core import registry
from agentrl.core.errors import DeadlineError, EngineError, ProposerError
from agentrl.core.exploring import Question, Voice
from agentrl.core.types import Message
from agentrl.explore.asking import as_choice

Style = Literal["chat", "act"]


def messages_of(question: Question) -> list[Message]:
    """System message, what was asked before, and the question."""
    system = [Message(role="system", text=question.system)] if question.system else []
    return [*system, *question.history, Message(role="user", text=question.text)]


async def said_by(
    voice: Voice, question: Question, *, style: Style, actions: str, max_tokens: int, seed: int
) -> str:
    """What a model answers. In the style `act` it is shown what the env shows, and its action is
    looked up among the options.

    Raises:
        ProposerError: no answer came, or its style has none to such a question.
    """
    if style == "act" and question.kind != "action":
        raise ProposerError(f"a model that only acts has no answer to {question.kind!r}")
    try:
        if style == "chat":
            return await voice(messages_of(question), max_tokens, seed)
        form = registry.find("actions", actions)()
        system = [Message(role="system", text=form.system)] if form.system else []
        messages = [*system, Message(role="user", text=question.shown)]
        action = form.parse(await voice(messages, max_tokens, seed))
    except (EngineError, DeadlineError) as error:
        raise ProposerError(f"the model gave no answer: {error}") from error
    text = action if isinstance(action, str) else "\n".join(action or ())
    return as_choice(text, question.options)
