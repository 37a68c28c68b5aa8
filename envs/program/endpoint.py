"""The HTTP side: programs ask here for chat completions, and wait until the model has answered.

One `Endpoint` serves many sessions, each under a base URL of its own (`/s/SESSION/v1`), so that
calls are known to belong together without a word in the program. Every request is handled in a
thread of its own; the requests of a session stand in a queue, so calls that a program makes at
once are answered one after another.
"""

from __future__ import annotations

import json
import queue
import secrets
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar, NamedTuple

from agentrl.core.errors import DataError
from agentrl.core.types import Json
from agentrl.text.openai import ChatRequest, Reply, answer, chunks, error_of, read_request

LARGEST = 64 * 2**20
"""Bytes of a request at most."""


class Score(NamedTuple):
    """How a program says that its session is over."""

    reward: float
    success: bool


class Broken(NamedTuple):
    """How a session ends whose program failed."""

    error: str


@dataclass(eq=False)
class Asked:
    """A request that waits for its reply."""

    request: ChatRequest
    _done: threading.Event = field(default_factory=threading.Event)
    _reply: Reply | None = None

    def tell(self, reply: Reply | None) -> None:
        """Answer; None says that nobody will."""
        self._reply = reply
        self._done.set()

    def wait(self, timeout_s: float) -> Reply | None:
        """The reply; None if there is none in time."""
        self._done.wait(timeout_s)
        return self._reply


@dataclass(eq=False, kw_only=True)
class Session:
    """One episode's requests, in order of arrival, and its end."""

    name: str
    timeout_s: float
    events: queue.SimpleQueue[Asked | Score | Broken] = field(default_factory=queue.SimpleQueue)
    is_over: bool = False

    def ask(self, request: ChatRequest) -> Reply | None:
        """Queue the request and wait; None when the session is over or nobody answers in time."""
        asked = Asked(request)
        self.events.put(asked)
        # Only now: a session that is closed meanwhile has emptied its queue already.
        return None if self.is_over else asked.wait(self.timeout_s)

    def close(self) -> None:
        """Answer nobody any more; whoever waits is told."""
        self.is_over = True
        with suppress(queue.Empty):  # whoever plays may take the last one meanwhile
            while True:
                event = self.events.get_nowait()
                if isinstance(event, Asked):
                    event.tell(None)


class Endpoint:
    """Listens on a port of its own until it is closed."""

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        on_new: Callable[[Session], None] | None = None,
        timeout_s: float = 600.0,
    ) -> None:
        """Args:
        on_new: called with the session that a first request opens; None answers only sessions
            that `open` made. A request without `/s/SESSION` belongs to that of its API key.
        timeout_s: how long the calls of such sessions wait for their replies.
        """
        self.sessions: dict[str, Session] = {}
        self._on_new, self._timeout_s = on_new, timeout_s
        self._lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"endpoint": self})
        self._server = _Server((host, port), handler)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name="endpoint", daemon=True
        )
        self._thread.start()

    @property
    def url(self) -> str:
        """Where it listens."""
        host, port = self._server.server_address[:2]
        return f"http://{host!s}:{port}"

    def open(self, timeout_s: float) -> Session:
        """A new session; `base_url` is where its program asks."""
        session = Session(name=secrets.token_hex(8), timeout_s=timeout_s)
        self.sessions[session.name] = session
        return session

    def find(self, name: str, *, is_opening: bool) -> Session | None:
        """The session of that name, opened if that is allowed."""
        with self._lock:
            session = self.sessions.get(name)
            if session is None and is_opening and name and self._on_new is not None:
                session = self.sessions[name] = Session(name=name, timeout_s=self._timeout_s)
                self._on_new(session)
            return session

    def base_url(self, session: Session) -> str:
        """What the program takes for the API's address."""
        return f"{self.url}/s/{session.name}/v1"

    def drop(self, session: Session) -> None:
        """The session is over."""
        self.sessions.pop(session.name, None)
        session.close()

    def close(self) -> None:
        """Stop listening and end every session; may be called twice."""
        for session in list(self.sessions.values()):
            self.drop(session)
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 256


class _Handler(BaseHTTPRequestHandler):
    endpoint: ClassVar[Endpoint]
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Nothing goes to the terminal."""

    def do_GET(self) -> None:
        """The list of models, for clients that look first."""
        if self.path.partition("?")[0].endswith("/v1/models"):
            model: Json = {"id": "policy", "object": "model", "created": 0, "owned_by": "agentrl"}
            self._json(200, {"object": "list", "data": [model]})
        else:
            self._json(404, error_of(f"nothing is at {self.path}"))

    def do_POST(self) -> None:
        """A chat completion, or a session's score."""
        length = int(self.headers.get("Content-Length") or 0)
        if not 0 < length <= LARGEST:
            self.close_connection = True
            self._json(413, error_of(f"expected a body of 1 to {LARGEST} bytes, got {length}"))
            return
        body = self.rfile.read(length)
        session, verb = self._session()
        if session is None:
            self._json(404, error_of(f"no session is open at {self.path}"))
        elif verb == "chat/completions":
            self._complete(session, body)
        elif verb == "score":
            self._score(session, body)
        else:
            self._json(404, error_of(f"{verb} is not offered; use chat/completions"))

    def _session(self) -> tuple[Session | None, str]:
        head, _, verb = self.path.partition("?")[0].partition("/v1/")
        key = self.headers.get("Authorization", "").removeprefix("Bearer ").strip()
        name = head.removeprefix("/s/") if head else key
        return self.endpoint.find(name, is_opening=verb == "chat/completions"), verb

    def _complete(self, session: Session, body: bytes) -> None:
        try:
            request = read_request(body)
        except DataError as error:
            self._json(400, error_of(str(error)))
            return
        reply = session.ask(request)
        if reply is None:
            text = "the episode is over (a limit of turns, tokens or time), or the engine failed"
            self._json(410, error_of(text, "episode_over"))
        elif request.is_stream:
            self._events(chunks(reply, request, session.name))
        else:
            self._json(200, answer(reply, request, session.name))

    def _score(self, session: Session, body: bytes) -> None:
        try:
            session.events.put(read_score(body.decode()))
        except (DataError, UnicodeDecodeError) as error:
            self._json(400, error_of(str(error)))
        else:
            self._json(200, {"ok": True})

    def _json(self, status: int, value: Mapping[str, Json]) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _events(self, events: Iterable[bytes]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.close_connection = True
        self.end_headers()
        for event in events:
            self.wfile.write(event)


def read_score(text: str) -> Score:
    """`{"reward": 1.0, "success": true}`; without `success`, a reward of 1 or more is one.

    Raises:
        DataError: it says no number.
    """
    try:
        raw = json.loads(text)
        reward = float(raw["reward"])
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f'expected a score such as {{"reward": 1.0, "success": true}}, got {text[:200]!r}'
        ) from error
    success = raw.get("success")
    return Score(reward, reward >= 1 if success is None else bool(success))
