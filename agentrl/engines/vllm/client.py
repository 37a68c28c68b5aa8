"""vLLM over HTTP: every field name of its interface, and whatever its versions differ in, is here.

A `Client` speaks to one server. `get` and `post` send anything; `generate` and `probe` are the
verbs of sampling, with token ids both ways: no chat template, no parser of tools or reasoning, no
text. Every answer is checked before it is used, since what a server gets wrong would be trained on.

Written for vLLM 0.31 to 0.33. Tokens come from `/inference/v1/generate`, which alone says which
weights made them; a server without it (it needs `--enable-scale-out`) is asked by
`/v1/completions`, whose answers carry no versions.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

import httpx

from agentrl.core.errors import DeadlineError, EngineError
from agentrl.core.types import Completion, Finish, Image, SamplingParams

logger = logging.getLogger(__name__)

KNOWN = ("0.31", "0.32", "0.33")
TOKENS = "/inference/v1/generate"
TEXT = "/v1/completions"
HEALTH = "/health"
WEIGHTS = "/weight_info"
NAME_WEIGHTS = "/update_weight_version"
METRICS = "/metrics"
PROGRESS = re.compile(r"^vllm:(?:prompt|generation)_tokens_total\{[^}]*\} (\S+)$", re.MULTILINE)
"""Counters of tokens that were computed, each with labels of its own."""

FLOOR = -9999.0
"""What vLLM writes where a logprob is NaN or minus infinity, which JSON has no words for."""
TEMPERATURES = (0.01, 2.0)
"""vLLM raises a lower temperature to the first, and refuses a higher one than the second."""
ABSENT = (403, 404, 405, 501)
"""HTTP status of an endpoint that is switched off, or that this version does not have."""
IDLE_S = 2.0
"""How long an unused connection is kept: the server closes it after 5 s."""

FIRST = -1
"""A priority that goes before that of any episode."""
UNNAMED = -1
"""The version of weights that nobody named: a server calls them `default` when it starts."""

Json = Mapping[str, object]


class ServerError(EngineError):
    """A server refused a request, or failed at it: no answer came that could be used."""

    def __init__(self, words: str, status: int = 0) -> None:
        super().__init__(words)
        self.status = status
        """HTTP's status; 0 where the connection failed."""

    @property
    def is_refusal(self) -> bool:
        """The server understood, and would say the same again."""
        return 400 <= self.status < 500 and self.status not in (408, 429)


class AnswerError(EngineError):
    """A server answered with something that cannot be true."""


def label(version: int) -> str:
    """How servers call the weights of a version: what a push gives as `weight_version`."""
    return str(version)


class Pictures(NamedTuple):
    """Images that a prompt shows, and the token that stands for them in it."""

    images: Sequence[Image]
    placeholder: int


@dataclass
class Client:
    """One server. Belongs to the event loop in which it is first used."""

    url: str
    api_key: str = field(default="", repr=False)
    model: str | None = None
    """The name that requests ask for: an adapter that was pushed, or None for the served model."""
    vocabulary: int | None = None
    """How many token ids there are, if known."""
    has_tokens: bool = field(default=True, init=False)
    """Whether it has the endpoint that tells versions (`greet` finds out)."""
    has_priorities: bool = field(default=True, init=False)
    """Whether it schedules by priority."""
    version: str = field(default="", init=False)
    """vLLM's own version."""
    _http: httpx.AsyncClient | None = field(default=None, init=False, repr=False)
    _waiting: dict[asyncio.Timeout, str] = field(default_factory=dict, init=False, repr=False)
    """Requests in flight, and what to say if their time is up."""

    def __post_init__(self) -> None:
        self.url = self.url.rstrip("/")

    # --- anything ---------------------------------------------------------------------------------

    async def get(self, path: str, *, timeout_s: float | None) -> object:
        """What a path answers: JSON, text, or None for an empty answer.

        Raises:
            ServerError: no connection, or a status other than 2xx; with the server's own words.
            DeadlineError: no whole answer within `timeout_s` seconds.
        """
        return await self._ask("GET", path, None, timeout_s)

    async def post(self, path: str, body: Json | None = None, *, timeout_s: float | None) -> object:
        """What a path answers to a JSON body. Raises as `get` does."""
        return await self._ask("POST", path, body, timeout_s)

    async def _ask(
        self, method: str, path: str, body: Json | None, timeout_s: float | None
    ) -> object:
        where = f"vLLM server {self.url}: {method} {path.partition('?')[0]}"
        limit = asyncio.timeout(timeout_s)
        self._waiting[limit] = f"no answer within {timeout_s} s"
        try:
            async with limit:
                answer = await self._session().request(method, path, json=body)
        except TimeoutError as error:
            raise DeadlineError(f"{where}: {self._waiting[limit]}") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ServerError(f"{where}: {type(error).__name__}: {error}") from error
        finally:
            del self._waiting[limit]
        if not answer.is_success:
            words = _words(answer) or answer.reason_phrase
            raise ServerError(f"{where}: {answer.status_code}: {words}", answer.status_code)
        if not answer.content:
            return None
        if "json" not in answer.headers.get("content-type", ""):
            return answer.text
        try:
            return cast(object, json.loads(answer.content))
        except ValueError as error:
            raise AnswerError(f"{where}: no JSON: {answer.text!r:.200}") from error

    def _session(self) -> httpx.AsyncClient:
        if self._http is None:
            self._http = httpx.AsyncClient(
                base_url=self.url,
                headers={"Authorization": f"Bearer {self.api_key}"} if self.api_key else {},
                timeout=None,
                limits=httpx.Limits(max_connections=None, keepalive_expiry=IDLE_S),
                trust_env=False,  # a proxy of the environment is not for the servers of a run
            )
        return self._http

    def give_up(self, why: str) -> None:
        """End all requests that wait, with a `DeadlineError`: nobody will answer them."""
        for limit in self._waiting:
            if not limit.expired():
                self._waiting[limit] = why
                limit.reschedule(asyncio.get_running_loop().time())

    async def close(self) -> None:
        """Close all connections; may be called twice. The next request opens new ones."""
        http, self._http = self._http, None
        if http is not None:
            await http.aclose()

    # --- what a server is -------------------------------------------------------------------------

    async def greet(self, *, timeout_s: float) -> None:
        """Find out what the server can do, and whether its logprobs are those that training needs.

        Raises:
            EngineError: it answers logprobs that are not of the tempered distribution.
        """
        about = await self.get("/version", timeout_s=timeout_s)
        self.version = str(about.get("version")) if isinstance(about, dict) else ""
        if not self.version.startswith(tuple(f"{known}." for known in KNOWN)):
            logger.warning(
                "vLLM server %s is of version %s, and agentrl was written for %s; it is tried",
                *(self.url, self.version or "unknown", ", ".join(KNOWN)),
            )
        self.has_tokens = self.has_priorities = True
        hot = SamplingParams(temperature=2.0, max_tokens=1, seed=1)
        try:
            answer = await self.generate([0], hot, priority=1, timeout_s=timeout_s)
        except ServerError as error:
            if not error.is_refusal:
                raise
            self.has_tokens = error.status not in ABSENT
            answer = await self._without_priority(hot, timeout_s)
        [cold] = await self.probe([0, answer.ids[0]], timeout_s=timeout_s)
        is_flat = abs(cold + math.log(self.vocabulary)) < 1e-3 if self.vocabulary else False
        if abs(answer.logprobs[0] - cold) < 1e-6 and not is_flat:
            raise EngineError(
                f"vLLM server {self.url} answers the same logprob at temperature 1 and 2: start it "
                "with --logprobs-mode processed_logprobs, or by agentrl serve-vllm"
            )

    async def _without_priority(self, params: SamplingParams, timeout_s: float) -> Completion:
        for priority in (1, 0):
            self.has_priorities = priority > 0
            try:
                return await self.generate([0], params, priority=priority, timeout_s=timeout_s)
            except ServerError as error:
                if priority == 0 or not error.is_refusal:
                    raise
        raise AssertionError("unreachable")

    async def check_health(self, *, timeout_s: float) -> None:
        """Returns if the server says that it is well. Raises as `get` does."""
        await self.get(HEALTH, timeout_s=timeout_s)

    async def progress(self, *, timeout_s: float) -> float | None:
        """Tokens that it has read and written so far; None if it does not count them."""
        told = await self.get(METRICS, timeout_s=timeout_s)
        found = PROGRESS.findall(told) if isinstance(told, str) else []
        return sum(map(float, found)) if found else None

    async def weights(self, *, timeout_s: float) -> str:
        """What the server calls its weights."""
        answer = await self.get(WEIGHTS, timeout_s=timeout_s)
        if not isinstance(answer, dict) or not isinstance(answer.get("weight_version"), str):
            raise AnswerError(f"vLLM server {self.url}: {WEIGHTS}: {answer!r:.200}")
        return str(answer["weight_version"])

    async def name_weights(self, version: int, *, timeout_s: float) -> None:
        """Call the weights that the server has by a version, without changing them."""
        await self.post(NAME_WEIGHTS, {"new_version": label(version)}, timeout_s=timeout_s)

    # --- tokens -----------------------------------------------------------------------------------

    async def generate(
        self,
        prompt_ids: Sequence[int],
        params: SamplingParams,
        *,
        timeout_s: float | None = None,
        request_id: str | None = None,
        priority: int = 0,
        pictures: Pictures | None = None,
    ) -> Completion:
        """Sample one reply; a stop id that ended it is its last token.

        Args:
            priority: lower ones go first, where the server schedules so.
            pictures: what the placeholders in `prompt_ids` stand for. The server must expand them
                into exactly these tokens, or its answer is refused.

        Returns:
            Tempered logprobs, and versions where the server tells them (else none).

        Raises:
            ServerError: refused or failed; no token was answered.
            AnswerError: what was answered cannot be true.
            DeadlineError: no whole answer within `timeout_s` seconds.
        """
        least, most = TEMPERATURES
        if not params.greedy and not least <= params.temperature <= most:
            raise EngineError(
                f"vLLM samples at temperatures from {least:g} to {most:g}, and "
                f"{params.temperature:g} was asked for (sampling.temperature)"
            )
        body = self._request(prompt_ids, request_id, priority) | self._sampling(
            {
                "temperature": 0.0 if params.greedy else params.temperature,
                "seed": params.seed,
                "max_tokens": params.max_tokens,
                "stop_token_ids": sorted(params.stop_ids),
                "ignore_eos": True,  # the stop ids are all of them
                "logprobs": 0,  # that of the sampled token
            }
        )
        if pictures is not None:
            body |= self._shown(prompt_ids, pictures)
        answer = await self.post(TOKENS if self.has_tokens else TEXT, body, timeout_s=timeout_s)
        try:
            if pictures is not None and answer["prompt_token_ids"] != list(prompt_ids):  # type: ignore[index]
                raise ValueError("images that take other tokens than the prompt has for them")
            choice = _first_choice(answer)
            if choice["finish_reason"] == "abort":
                raise ServerError(f"vLLM server {self.url} aborted a request")
            ids, logprobs = _tokens(choice) if self.has_tokens else _tokens_of_text(choice)
            _check(ids, logprobs, params, self.vocabulary)
            spans = choice.get("weight_versions")
            return Completion(
                ids=ids,
                logprobs=logprobs,
                finish=_finish(choice["finish_reason"], ids, params),
                versions=_versions(spans, len(ids)) if spans is not None else (),
            )
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            raise self._nonsense(error, answer) from error

    async def probe(self, ids: Sequence[int], *, timeout_s: float | None) -> list[float]:
        """Untempered logprobs of `ids[1:]` given what precedes each, computed without the cache.

        Raises as `generate` does.
        """
        settings: Json = {"temperature": 0.0, "max_tokens": 1, "prompt_logprobs": 0}
        body = self._request(ids, None, FIRST) | self._sampling(settings)
        answer = await self.post(TOKENS if self.has_tokens else TEXT, body, timeout_s=timeout_s)
        try:
            holder = answer if self.has_tokens else _first_choice(answer)
            told = holder["prompt_logprobs"]  # type: ignore[index]
            if len(told) != len(ids):
                raise ValueError(f"{len(told)} logprobs of a prompt of {len(ids)} tokens")
            found = [
                float(at[str(token)]["logprob"])
                for at, token in zip(told[1:], ids[1:], strict=True)
            ]
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            raise self._nonsense(error, answer) from error
        if not all(map(_is_logprob, found)):
            raise AnswerError(f"vLLM server {self.url}: logprobs of a prompt are not finite")
        return found

    def _request(
        self, ids: Sequence[int], request_id: str | None, priority: int
    ) -> dict[str, object]:
        """What surrounds the sampling parameters."""
        body: dict[str, object] = {"token_ids" if self.has_tokens else "prompt": list(ids)}
        if self.model is not None:
            body["model"] = self.model
        if request_id is not None:
            body["request_id"] = request_id
        if self.has_priorities and priority:
            body["priority"] = priority
        return body

    def _sampling(self, settings: Json) -> dict[str, object]:
        """Sampling parameters where this endpoint has them."""
        if self.has_tokens:
            return {"sampling_params": {**settings, "detokenize": False}}
        return {**settings, "return_token_ids": True, "return_tokens_as_token_ids": True}

    def _shown(self, prompt_ids: Sequence[int], pictures: Pictures) -> dict[str, object]:
        """The prompt with one placeholder for each image, and the images. Raises `EngineError`."""
        short = [
            token
            for before, token in zip([None, *prompt_ids], prompt_ids, strict=False)
            if token != pictures.placeholder or before != token
        ]
        shown = short.count(pictures.placeholder)
        if not self.has_tokens or shown != len(pictures.images):
            raise EngineError(
                f"a prompt with {shown} images in it came with {len(pictures.images)}"
                if self.has_tokens
                else f"vllm server {self.url} takes images with --enable-scale-out only"
            )
        parts = [
            {
                "type": "image_url",
                "url": f"data:image/png;base64,{b64encode(image.png).decode()}",
                "uuid": image.hash,
            }
            for image in pictures.images
        ]
        return {"token_ids": short, "content_parts": parts, "return_token_ids": True}

    def _nonsense(self, error: Exception, answer: object) -> AnswerError:
        why = str(error) if type(error) is ValueError else f"{type(error).__name__}: {error}"
        return AnswerError(f"vLLM server {self.url}: {why}, in {answer!r:.300}")


# --- what answers hold ----------------------------------------------------------------------------


def _words(answer: httpx.Response) -> str:
    """What a server says of a failure, whichever part of it says it."""
    try:
        told = answer.json()
    except ValueError:
        return answer.text[:500]
    for key in ("error", "detail", "message"):
        if isinstance(told, dict) and key in told:
            told = told[key]
    return told if isinstance(told, str) else json.dumps(told)[:500]


def _first_choice(answer: object) -> Mapping[str, Any]:
    [choice] = answer["choices"]  # type: ignore[index]
    return cast("Mapping[str, Any]", choice)


def _tokens(choice: Mapping[str, Any]) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Ids and logprobs of the endpoint of tokens."""
    ids, told = tuple(choice["token_ids"]), choice["logprobs"]["content"]
    if len(told) != len(ids):
        raise ValueError(f"{len(told)} logprobs of {len(ids)} tokens")
    if [_token_of(one) for one in told] != list(ids):
        raise ValueError("logprobs of other tokens than were sampled")
    return ids, tuple(float(one["logprob"]) for one in told)


def _token_of(told: Mapping[str, Any]) -> int:
    """0.32 writes the id as a number, 0.31 as the text `token_id:N`."""
    if "token_id" in told:
        return int(told["token_id"])
    return int(str(told["token"]).removeprefix("token_id:"))


def _tokens_of_text(choice: Mapping[str, Any]) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Ids and logprobs of `/v1/completions`."""
    ids, told = tuple(choice["token_ids"]), choice["logprobs"]
    if not len(told["token_logprobs"]) == len(told["tokens"]) == len(ids):
        raise ValueError(f"{len(told['token_logprobs'])} logprobs of {len(ids)} tokens")
    if [_token_of({"token": token}) for token in told["tokens"]] != list(ids):
        raise ValueError("logprobs of other tokens than were sampled")
    return ids, tuple(float(one) for one in told["token_logprobs"])


def _is_logprob(value: float) -> bool:
    return math.isfinite(value) and FLOOR < value < 1e-3


def _check(
    ids: Sequence[int], logprobs: Sequence[float], params: SamplingParams, vocabulary: int | None
) -> None:
    """Raises `ValueError` for what no sampler can have sampled."""
    if not 1 <= len(ids) <= params.max_tokens:
        raise ValueError(f"{len(ids)} tokens, where 1 to {params.max_tokens} were asked for")
    if not all(type(token) is int and 0 <= token < (vocabulary or 2**31) for token in ids):
        raise ValueError(f"token ids that the model does not have (0 to {vocabulary or '?'})")
    if not all(map(_is_logprob, logprobs)):
        raise ValueError("logprobs that are not finite")
    if not params.stop_ids.isdisjoint(ids[:-1]):
        raise ValueError("tokens behind a stop id")


def _finish(reason: str, ids: Sequence[int], params: SamplingParams) -> Finish:
    """Our word for why the reply ended. Raises `ValueError` if it should not have."""
    has_stopped = ids[-1] in params.stop_ids
    if reason == "stop" and has_stopped:
        return Finish.EOS
    if reason == "length" and not has_stopped:
        return Finish.LENGTH
    raise ValueError(f"finish reason {reason!r} behind token {ids[-1]}")


def _versions(spans: Sequence[Mapping[str, Any]], count: int) -> tuple[tuple[int, int], ...]:
    """(version, tokens) of each run of tokens that the same weights made."""
    at, found = 0, []
    for span in spans:
        if span["start"] != at or not at < span["end"] <= count:
            raise ValueError(f"weight versions {spans!r} of {count} tokens")
        name = str(span["version"])
        found.append((int(name) if name.isdecimal() else UNNAMED, span["end"] - at))
        at = span["end"]
    if at != count:
        raise ValueError(f"weight versions {spans!r} of {count} tokens")
    return tuple(found)
