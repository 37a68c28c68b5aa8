"""Proposers by hand, and a server that speaks OpenAI's chat API."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agentrl.core.exploring import Question, Voice
from agentrl.core.types import Task
from support.fake_http import Answer, FakeHttp


@dataclass
class Scripted:
    """Says what a function says."""

    speak: Callable[[Question], str]
    heard: list[Question] = field(default_factory=list)

    async def start(self, folder: Path, voice: Voice | None) -> None:
        """Nothing to do."""

    async def answer(self, question: Question, seed: int) -> str:
        """The function's answer."""
        self.heard.append(question)
        return self.speak(question)

    async def close(self) -> None:
        """Nothing is open."""


def asked(kind: str, key: str, options: Sequence[str], text: str = "which?") -> Question:
    """A question of task `t`."""
    return Question(
        kind=kind, task=Task(id="t", seed=0), key=key, text=text, options=tuple(options)
    )


@dataclass(kw_only=True, eq=False)
class FakeChat(FakeHttp):
    """Answers chat completions by a script of texts, statuses or bodies; the last goes on."""

    script: list[object] = field(default_factory=lambda: ['{"choice": 1}'])
    bodies: list[dict[str, Any]] = field(default_factory=list)

    async def route(
        self, method: str, path: str, query: Mapping[str, list[str]], body: dict[str, Any]
    ) -> object:
        """The next of the script."""
        if (method, path) != ("POST", "/v1/chat/completions"):
            raise Answer(404, {"error": {"message": f"no {path}"}})
        self.bodies.append(body)
        said = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if isinstance(said, int):
            raise Answer(said, {"error": {"message": "as the script says"}})
        if not isinstance(said, str):
            return said
        message = {"role": "assistant", "content": said}
        return {"choices": [{"message": message}], "usage": {"total_tokens": 7}}
