"""Any server that speaks OpenAI's chat API; what it said is kept, so that it is asked once."""

from __future__ import annotations

import asyncio
import logging
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, cast

import httpx
from annotated_types import Ge, Gt

from agentrl.core.errors import BudgetError, ConfigError, ProposerError
from agentrl.core.exploring import Question, Voice
from agentrl.core.registry import register
from agentrl.core.types import Json
from agentrl.explore.speaking import messages_of
from agentrl.explore.tables import AnswerTable, append_entry, digest_of, read_table

logger = logging.getLogger(__name__)
AGAIN = frozenset({408, 409, 425, 429})
"""Statuses below 500 after which the same may be asked again."""
PAUSE_S = 0.5
"""Before the second try; each further pause is twice as long."""


@register("proposer", "server")
@dataclass(kw_only=True)
class Server:
    """A model behind OpenAI's chat API: a service, `agentrl serve`, vLLM, llama.cpp. Answers are
    kept in a table in the run's folder or at `cache`, by model and whole question; that file is an
    offline table for `{name: table, by: MODEL}`."""

    url: str
    """Of the API, `http://localhost:8000/v1` say."""
    model: str
    """The name that requests ask for."""
    key_env: str = "OPENAI_API_KEY"
    """The environment variable that holds the key; an unset one sends none."""
    temperature: Annotated[float, Ge(0)] = 0.7
    """Of its answers."""
    max_tokens: Annotated[int, Ge(1)] = 1_000
    """Tokens of an answer at most."""
    timeout_s: Annotated[float, Gt(0)] = 60.0
    """Seconds that one request may take."""
    deadline_s: Annotated[float, Gt(0)] = 180.0
    """Seconds that a question may take, with all tries."""
    tries: Annotated[int, Ge(1)] = 3
    """Requests that a question may cost."""
    calls: Annotated[int, Ge(0)] | None = None
    """Requests that may be made in all; then there are no more answers, but for known ones."""
    tokens: Annotated[int, Ge(0)] | None = None
    """Tokens, read and written, after which no further request is made."""
    cache: Path | None = None
    """The table of answers; `none` is `answers.jsonl` in the run's folder."""
    spent_calls: int = field(default=0, init=False, compare=False)
    spent_tokens: int = field(default=0, init=False, compare=False)
    known: int = field(default=0, init=False, compare=False)
    """Questions whose answer was known."""
    _http: httpx.AsyncClient | None = field(default=None, init=False, repr=False, compare=False)
    _table: AnswerTable = field(default_factory=AnswerTable, init=False, repr=False, compare=False)
    _path: Path | None = field(default=None, init=False, repr=False, compare=False)

    async def start(self, folder: Path, voice: Voice | None) -> None:
        """Read what is known. Raises `ConfigError` if the cache is no table."""
        self._path = self.cache or folder / "answers.jsonl"
        if self._path.exists():
            self._table = read_table(self._path)

    async def answer(self, question: Question, seed: int) -> str:
        """What it says, or said before.

        Raises:
            BudgetError: `calls` or `tokens` are spent.
            ProposerError: no answer came in time, or the server refused.
        """
        said = self._table.find(question, self.model)
        if said is not None:
            self.known += 1
            return said
        try:
            async with asyncio.timeout(self.deadline_s):
                said = await self._tried(question, seed)
        except TimeoutError as error:
            raise ProposerError(f"{self.url}: no answer within {self.deadline_s:g} s") from error
        self._keep(question, said)
        return said

    def _keep(self, question: Question, said: str) -> None:
        entry = {"digest": digest_of(question, self.model), "kind": question.kind, "answer": said}
        if not question.options:  # the number of an option means nothing beside other ones
            entry |= {"task": question.task.id, "key": question.key}
        self._table.add(entry)
        if self._path is None:
            return
        try:
            append_entry(self._path, entry, {"by": self.model, "temperature": self.temperature})
        except OSError as error:
            logger.warning(
                "proposer: %s cannot be written, answers are lost: %s", self._path, error
            )
            self._path = None

    async def _tried(self, question: Question, seed: int) -> str:
        for left in reversed(range(self.tries)):
            self._pay()
            try:
                return await self._ask(question, seed)
            except _AgainError as error:
                if not left:
                    raise ProposerError(f"{error}, {self.tries} times") from error
                await asyncio.sleep(PAUSE_S * 2 ** (self.tries - 1 - left))
        raise AssertionError("unreachable")

    def _pay(self) -> None:
        if self.calls is not None and self.spent_calls >= self.calls:
            raise BudgetError(f"{self.url}: all {self.calls} calls are spent")
        if self.tokens is not None and self.spent_tokens >= self.tokens:
            raise BudgetError(f"{self.url}: {self.spent_tokens} of {self.tokens} tokens are spent")
        self.spent_calls += 1

    async def _ask(self, question: Question, seed: int) -> str:
        body = {
            "model": self.model,
            "messages": [{"role": m.role, "content": m.text} for m in messages_of(question)],
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
            "seed": seed,
        }
        where = f"{self.url}/chat/completions"
        try:
            got = await self._session().post("/chat/completions", json=body)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise _AgainError(f"{where}: {type(error).__name__}: {error}") from error
        if not got.is_success:
            words = f"{where}: {got.status_code}: {got.text[:200]}"
            if got.status_code >= 500 or got.status_code in AGAIN:
                raise _AgainError(words)
            raise ProposerError(words)
        return self._read(got, where)

    def _read(self, got: httpx.Response, where: str) -> str:
        try:
            answer = cast("dict[str, Json]", got.json())
            [choice, *_] = cast("list[dict[str, dict[str, Json]]]", answer["choices"])
            said = choice["message"]["content"]
            used = cast("dict[str, int]", answer.get("usage") or {}).get("total_tokens", 0)
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise _AgainError(f"{where}: no chat completion: {got.text[:200]!r}") from error
        self.spent_tokens += used if isinstance(used, int) else 0
        if not isinstance(said, str):
            raise _AgainError(f"{where}: an answer without text: {got.text[:200]!r}")
        return said

    def _session(self) -> httpx.AsyncClient:
        if self._http is None:
            if not self.url.startswith(("http://", "https://")):
                raise ConfigError(
                    f"proposer.url: expected http://... or https://..., got {self.url!r}"
                )
            key = os.environ.get(self.key_env, "")
            self._http = httpx.AsyncClient(
                base_url=self.url.rstrip("/"),
                headers={"Authorization": f"Bearer {key}"} if key else {},
                timeout=self.timeout_s,
            )
        return self._http

    async def close(self) -> None:
        """Close the connections; may be called twice."""
        http, self._http = self._http, None
        if http is not None:
            await http.aclose()


class _AgainError(ProposerError):
    """It may be asked again."""
