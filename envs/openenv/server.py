"""The server's side of OpenEnv's protocol: a game behind HTTP and WebSockets, for many at once.

| path | what it does |
|---|---|
| `GET /health`, `/metadata`, `/schema` | what OpenEnv's servers say there |
| `GET /ws` | a WebSocket is a session: `reset`, `step`, `state`, `close` |
| `POST /reset`, `/step`, `GET /state` | a session for each `episode_id`, and one without a name |

OpenEnv's own server begins a new environment at each HTTP request, so there only the WebSocket can
play; here HTTP can as well. MCP is not offered. Every connection has a thread of its own.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, ClassVar, Protocol, cast
from urllib.parse import parse_qs

from agentrl.core.errors import AgentRLError, DataError, MissingExtraError
from agentrl.core.types import Json
from agentrl.envs.openenv.remote import FULL, LARGEST, QUIET

if TYPE_CHECKING:
    from websockets.sync.connection import Connection

Data = Mapping[str, Json]


class Game(Protocol):
    """What a session plays. Calls come one after another, each perhaps in another thread.

    `DataError` says that the caller asked for what cannot be; any other `AgentRLError` or
    `RuntimeError` that the game failed.
    """

    def reset(self, data: Data) -> Data:
        """Begin an episode: `{"observation": {...}, "reward": None, "done": False}`."""
        ...

    def step(self, action: Data, timeout_s: float | None = None) -> Data:
        """Act; the answer is of the same form."""
        ...

    def state(self) -> Data:
        """`episode_id`, `step_count` and whatever else there is to tell."""
        ...

    def close(self) -> None:
        """The session is over."""
        ...


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a server says about its environment."""

    name: str
    description: str
    version: str
    action: Data
    """JSON schema of an action."""
    observation: Data
    """JSON schema of an observation."""

    def metadata(self) -> Data:
        """What `/metadata` answers."""
        return {"name": self.name, "description": self.description, "version": self.version}

    def schemas(self) -> Data:
        """What `/schema` answers."""
        state: Data = {
            "title": "State",
            "type": "object",
            "properties": {
                "episode_id": {"anyOf": [{"type": "string"}, {"type": "null"}]},
                "step_count": {"type": "integer", "minimum": 0},
            },
        }
        return {"action": self.action, "observation": self.observation, "state": state}


class FullError(AgentRLError, RuntimeError):
    """There are as many sessions as there may be."""


@dataclass(eq=False)
class Session:
    """A game and who waits for it."""

    game: Game
    lock: threading.Lock = field(default_factory=threading.Lock)
    used_at: float = field(default_factory=time.monotonic)


class Server:
    """Listens on a port of its own until it is closed."""

    def __init__(
        self,
        make: Callable[[], Game],
        card: Card,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        max_sessions: int = 256,
        idle_s: float = 600.0,
    ) -> None:
        """Args:
        make: a new game, for a new session.
        max_sessions: how many may be open at once.
        idle_s: seconds without a message after which a session is ended.
        """
        self.card, self.idle_s = card, idle_s
        self._make, self._max_sessions = make, max_sessions
        self._lock = threading.Lock()
        self._sessions: set[Session] = set()
        self._named: dict[str, Session] = {}
        handler = type("Handler", (_Handler,), {"server_side": self})
        self._http = _Http((host, port), handler)
        self._thread = threading.Thread(
            target=self._http.serve_forever, args=(0.05,), name="openenv", daemon=True
        )
        self._thread.start()

    @property
    def url(self) -> str:
        """Where it listens."""
        host, port = self._http.server_address[:2]
        return f"http://{host!s}:{port}"

    @property
    def sessions(self) -> int:
        """How many are open."""
        return len(self._sessions)

    def open(self, name: str | None = None) -> Session:
        """A new session; one with a name is found by it. Raises `FullError`."""
        with self._lock:
            found = None if name is None else self._named.get(name)
            if found is not None:
                return found
            if len(self._sessions) >= self._max_sessions:
                self._drop_idle()
            if len(self._sessions) >= self._max_sessions:
                raise FullError(
                    f"all {self._max_sessions} sessions are in use (serve-env --sessions sets how "
                    "many there may be)"
                )
            session = Session(self._make())
            self._sessions.add(session)
            if name is not None:
                self._named[name] = session
            return session

    def named(self, name: str) -> Session:
        """An open session. Raises `DataError`."""
        found = self._named.get(name)
        if found is None:
            raise DataError("no episode has begun: POST /reset first, with the same episode_id")
        return found

    def drop(self, session: Session) -> None:
        """End a session."""
        with self._lock:
            self._forget(session)
        with suppress(AgentRLError), session.lock:
            session.game.close()

    def close(self) -> None:
        """Stop listening and end every session; may be called twice."""
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()
        for session in list(self._sessions):
            self.drop(session)

    def _drop_idle(self) -> None:
        for session in list(self._named.values()):
            if time.monotonic() - session.used_at > self.idle_s:
                self._forget(session)
                session.game.close()

    def _forget(self, session: Session) -> None:
        self._sessions.discard(session)
        self._named = {name: one for name, one in self._named.items() if one is not session}


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 256


class _Handler(BaseHTTPRequestHandler):
    server_side: ClassVar[Server]
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Nothing goes to the terminal."""

    def do_GET(self) -> None:
        """What the server is, the state of a session, or a WebSocket."""
        path, _, query = self.path.partition("?")
        card = self.server_side.card
        answers: dict[str, Callable[[], Data]] = {
            "/health": lambda: {"status": "healthy"},
            "/metadata": card.metadata,
            "/schema": card.schemas,
            "/state": lambda: self._state((parse_qs(query).get("episode_id") or [""])[0]),
        }
        if path == "/ws":
            self._upgrade()
        elif path in answers:
            self._answer(answers[path])
        else:
            known = ", ".join([*answers, "/ws"])
            self._json(HTTPStatus.NOT_FOUND, {"detail": f"nothing is at {path} (known: {known})"})

    def do_POST(self) -> None:
        """An episode over HTTP."""
        length = int(self.headers.get("Content-Length") or 0)
        if not 0 <= length <= LARGEST:
            self.close_connection = True
            detail = f"expected a body of at most {LARGEST} bytes, got {length}"
            self._json(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, {"detail": detail})
            return
        body = self.rfile.read(length)
        if self.path == "/reset":
            self._answer(lambda: self._reset(_object(body or b"{}")))
        elif self.path == "/step":
            self._answer(lambda: self._step(_object(body)))
        else:
            detail = f"nothing is at {self.path} (known: /reset, /step)"
            self._json(HTTPStatus.NOT_FOUND, {"detail": detail})

    # --- HTTP ---------------------------------------------------------------------------------

    def _reset(self, data: Data) -> Data:
        session = self.server_side.open(str(data.get("episode_id") or ""))
        with session.lock:
            session.used_at = time.monotonic()
            return session.game.reset(data)

    def _step(self, data: Data) -> Data:
        action, timeout_s = data.get("action"), data.get("timeout_s")
        if not isinstance(action, dict):
            raise DataError(f"action: expected an object, got {action!r:.100}")
        session = self.server_side.named(str(data.get("episode_id") or ""))
        with session.lock:
            session.used_at = time.monotonic()
            limit = float(timeout_s) if isinstance(timeout_s, int | float) else None
            return session.game.step(action, limit)

    def _state(self, name: str) -> Data:
        session = self.server_side.named(name)
        with session.lock:
            return session.game.state()

    def _answer(self, make: Callable[[], Data]) -> None:
        try:
            self._json(HTTPStatus.OK, make())
        except DataError as error:
            self._json(HTTPStatus.UNPROCESSABLE_ENTITY, {"detail": str(error)})
        except FullError as error:
            self._json(HTTPStatus.SERVICE_UNAVAILABLE, {"detail": str(error)})
        except (AgentRLError, RuntimeError) as error:
            self._json(HTTPStatus.INTERNAL_SERVER_ERROR, {"detail": str(error)})

    def _json(self, status: HTTPStatus, value: Data) -> None:
        data = json.dumps(value, allow_nan=False).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    # --- WebSocket ----------------------------------------------------------------------------

    def _upgrade(self) -> None:
        """Shake hands, then talk until either side has enough."""
        try:
            from websockets.datastructures import Headers
            from websockets.exceptions import ConnectionClosed
            from websockets.http11 import Request
            from websockets.protocol import Protocol as Frames
            from websockets.protocol import Side
            from websockets.server import ServerProtocol
            from websockets.sync.connection import Connection
        except ImportError as error:
            raise MissingExtraError("websockets", "openenv") from error
        self.close_connection = True
        handshake = ServerProtocol()
        response = handshake.accept(Request(self.path, Headers(self.headers.items())))
        handshake.send_response(response)
        self.wfile.write(b"".join(handshake.data_to_send()))
        if response.status_code != HTTPStatus.SWITCHING_PROTOCOLS:
            return
        socket = Connection(self.connection, Frames(Side.SERVER, max_size=LARGEST, logger=QUIET))
        try:
            session = self.server_side.open()
        except FullError as error:
            with suppress(ConnectionClosed):
                socket.send(_error(str(error), FULL))
            socket.close()
            return
        try:
            with suppress(ConnectionClosed, TimeoutError):
                self._talk(socket, session)
        finally:
            self.server_side.drop(session)
            socket.close()

    def _talk(self, socket: Connection, session: Session) -> None:
        while True:
            text = socket.recv(timeout=self.server_side.idle_s)
            try:
                message = _object(text if isinstance(text, bytes) else text.encode())
            except DataError as error:
                socket.send(_error(str(error), "INVALID_JSON"))
                continue
            if message.get("type") == "close":
                return
            with session.lock:
                socket.send(_reply(session.game, message))


def _reply(game: Game, message: Data) -> str:
    """What a message is answered."""
    kind, data = message.get("type"), message.get("data")
    try:
        if kind == "state":
            return json.dumps({"type": "state", "data": game.state()}, allow_nan=False)
        if kind not in ("reset", "step"):
            return _error(f"Unknown message type: {kind}", "UNKNOWN_TYPE")
        if not isinstance(data, dict) and (kind == "step" or data is not None):
            raise DataError(f"data: expected an object, got {data!r:.100}")
        given = cast("Data", data or {})
        shown = game.reset(given) if kind == "reset" else game.step(given)
        return json.dumps({"type": "observation", "data": shown}, allow_nan=False)
    except DataError as error:
        return _error(str(error), "VALIDATION_ERROR")
    except (AgentRLError, RuntimeError) as error:
        return _error(str(error), "EXECUTION_ERROR")


def _error(message: str, code: str) -> str:
    return json.dumps({"type": "error", "data": {"message": message, "code": code}})


def _object(body: bytes) -> dict[str, Json]:
    try:
        found = json.loads(body)
    except ValueError as error:
        raise DataError(f"Invalid JSON: {error}") from error
    if not isinstance(found, dict):
        raise DataError(f"expected a JSON object, got {found!r:.100}")
    return found
