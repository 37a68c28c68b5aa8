"""Chat completions in the words of OpenAI's API: requests to messages, replies to answers.

Nothing here samples or listens; `envs/program` and `agentrl serve` do. What a request asks for that
cannot be given exactly (logprobs, a JSON schema, several choices of a stream) is refused, never
ignored; how tokens are sampled is the run's business, so `temperature`, `max_tokens` and the like
are not the program's to decide.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from agentrl.core.errors import DataError
from agentrl.core.types import Action, Image, Json, Message, Role
from agentrl.text.calls import Call, canonical, read_json

ROLES: Mapping[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}
REFUSED = ("logprobs", "top_logprobs", "response_format", "audio", "prediction", "logit_bias")
"""What changes the answer in a way that is not offered."""
PNG = "data:image/png;base64,"


@dataclass(frozen=True, kw_only=True)
class Said:
    """One message of a request."""

    role: Role
    text: str
    images: tuple[Image, ...] = ()
    calls: tuple[str, ...] = ()
    """An assistant's tool calls, as canonical strings."""


@dataclass(frozen=True, kw_only=True)
class ChatRequest:
    """What a program asks for."""

    said: tuple[Said, ...]
    tools: tuple[Mapping[str, Json], ...] = ()
    is_stream: bool = False
    model: str = ""


def read_request(body: bytes) -> ChatRequest:
    """The request in a body of `POST /v1/chat/completions`.

    Raises:
        DataError: it is none, or asks for what is not offered; with the field's name.
    """
    try:
        raw = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise DataError(f"the body is no JSON: {error}") from error
    if not isinstance(raw, dict) or not isinstance(raw.get("messages"), list):
        raise DataError("messages: expected a list of messages")
    for name in REFUSED:
        if raw.get(name) not in (None, False, {}, {"type": "text"}):
            raise DataError(f"{name}: not offered here")
    if raw.get("n") not in (None, 1):
        raise DataError("n: one choice at a time is offered; ask again for another")
    tools = raw.get("tools") or []
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise DataError("tools: expected a list of tools")
    said = tuple(_said(i, message) for i, message in enumerate(raw["messages"]))
    if not said or said[-1].role == "assistant":
        raise DataError("messages: expected a user's or a tool's message at the end")
    return ChatRequest(
        said=said,
        tools=tuple(tools),
        is_stream=bool(raw.get("stream")),
        model=str(raw.get("model", "")),
    )


def _said(place: int, raw: object) -> Said:
    where = f"messages[{place}]"
    if not isinstance(raw, dict) or raw.get("role") not in ROLES:
        raise DataError(f"{where}.role: expected one of {', '.join(ROLES)}")
    texts, images = [], []
    content = raw.get("content")
    for part in [content] if isinstance(content, str) else content or []:
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, dict) and isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif isinstance(part, dict) and part.get("type") == "image_url":
            images.append(_image(where, part))
        else:
            raise DataError(f"{where}.content: expected text and image_url parts, got {part!r:.80}")
    calls = tuple(_call(where, one) for one in raw.get("tool_calls") or [])
    return Said(
        role=ROLES[str(raw["role"])], text="\n".join(texts), images=tuple(images), calls=calls
    )


def _image(where: str, part: Mapping[str, object]) -> Image:
    holder = part.get("image_url")
    url = holder.get("url") if isinstance(holder, dict) else holder
    if not isinstance(url, str) or not url.startswith(PNG):
        raise DataError(f"{where}.content: pictures are taken as {PNG}...")
    try:
        return Image(base64.b64decode(url.removeprefix(PNG), validate=True))
    except ValueError as error:
        raise DataError(f"{where}.content: {error}") from error


def _call(where: str, raw: object) -> str:
    function = raw.get("function") if isinstance(raw, dict) else None
    arguments = read_json(str(function.get("arguments"))) if isinstance(function, dict) else None
    if not isinstance(function, dict) or not isinstance(arguments, dict):
        raise DataError(f"{where}.tool_calls: expected functions with JSON arguments")
    return canonical(Call(str(function.get("name")), arguments))


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What the model answered: text, or tool calls as canonical strings."""

    number: int
    """Of the reply in its session."""
    text: str = ""
    calls: tuple[str, ...] = ()

    @classmethod
    def of(cls, number: int, action: Action, request: ChatRequest) -> Reply:
        """An action as a reply: calls where the request listed tools and the action holds some."""
        texts = [action] if isinstance(action, str) else action
        if request.tools and all(_is_call(text) for text in texts):
            return cls(number=number, calls=tuple(texts))
        return cls(number=number, text="\n".join(texts))

    def is_in(self, said: Said) -> bool:
        """Whether a program's message repeats it."""
        if said.role != "assistant":
            return False
        return (said.calls == self.calls) if self.calls else (said.text.strip() == self.text)


def _is_call(text: str) -> bool:
    value = read_json(text)
    return isinstance(value, dict) and set(value) == {"name", "arguments"}


def messages_of(request: ChatRequest, replies: Sequence[Reply]) -> tuple[Message, ...]:
    """The whole conversation; what the model said itself is named by its number (`Message.reply`).

    Replies are recognised in their order, each once, so that two equal ones are kept apart.
    """
    found: list[Message] = []
    left = list(replies)
    for said in request.said:
        reply = next((one for one in left if one.is_in(said)), None)
        if reply is not None:
            left = left[left.index(reply) + 1 :]
        text = "\n".join(filter(None, (said.text, *said.calls)))
        number = None if reply is None else reply.number
        found.append(Message(role=said.role, text=text, images=said.images, reply=number))
    return tuple(found)


def answer(reply: Reply, request: ChatRequest, session: str) -> dict[str, Json]:
    """The `chat.completion` of a reply."""
    message: dict[str, Json] = {"role": "assistant", "content": None if reply.calls else reply.text}
    if reply.calls:
        message["tool_calls"] = _tool_calls(reply)
    return _envelope(reply, request, session, "chat.completion") | {
        "choices": [{"index": 0, "message": message, "finish_reason": _why(reply)}]
    }


def chunks(reply: Reply, request: ChatRequest, session: str) -> Iterator[bytes]:
    """The same as server-sent events: the reply is sampled whole, so it comes in one piece."""
    calls = [{"index": i, **call} for i, call in enumerate(_tool_calls(reply))]
    delta: dict[str, Json] = {"role": "assistant"}
    delta |= {"tool_calls": calls} if calls else {"content": reply.text}
    for part, why in ((delta, None), ({}, _why(reply))):
        choice = {"index": 0, "delta": part, "finish_reason": why}
        event = _envelope(reply, request, session, "chat.completion.chunk") | {"choices": [choice]}
        yield f"data: {json.dumps(event)}\n\n".encode()
    yield b"data: [DONE]\n\n"


def _tool_calls(reply: Reply) -> list[dict[str, Json]]:
    found: list[dict[str, Json]] = []
    for i, text in enumerate(reply.calls):
        call = cast("Mapping[str, Json]", json.loads(text))
        arguments = json.dumps(call["arguments"], ensure_ascii=False)
        function: Json = {"name": call["name"], "arguments": arguments}
        found.append({"id": f"call_{reply.number}_{i}", "type": "function", "function": function})
    return found


def _why(reply: Reply) -> str:
    return "tool_calls" if reply.calls else "stop"


def _envelope(reply: Reply, request: ChatRequest, session: str, kind: str) -> dict[str, Json]:
    return {
        "id": f"chatcmpl-{session}-{reply.number}",
        "object": kind,
        "created": 0,
        "model": request.model,
    }


def error_of(text: str, kind: str = "invalid_request_error") -> dict[str, Json]:
    """An error as OpenAI's clients read it."""
    return {"error": {"message": text, "type": kind, "param": None, "code": None}}
