"""The client's side of OpenEnv's protocol: JSON messages over a WebSocket, schemas over HTTP.

A connection is a session: the server keeps an environment for it. The protocol was read in and
tried against openenv-core 0.3.0, which is not needed here.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from ipaddress import ip_address
from typing import TYPE_CHECKING, NamedTuple, cast
from urllib.parse import urlsplit

from agentrl.core.errors import ConfigError, DeadlineError, EnvError, MissingExtraError
from agentrl.core.types import Json

if TYPE_CHECKING:
    from websockets.sync.client import ClientConnection

LARGEST = 64 * 2**20
"""Bytes of a message at most."""
CLOSING_S = 2.0
"""How long the server has to say goodbye."""
FULL = "CAPACITY_REACHED"
"""OpenEnv's code for a server that has no session free."""
ADVICE = "each episode in flight keeps a session: set rollout.in_flight to what the server has"
QUIET = logging.Logger("websockets", logging.CRITICAL)
"""For `websockets`: what it has to say comes as an error that is raised."""
BUSY_S = 0.2
"""Between two tries at a server that has no session free."""


class Shown(NamedTuple):
    """What a server answers to `reset` and `step`."""

    observation: Mapping[str, Json]
    reward: float
    """0 where the server gave none."""
    done: bool


class RefusedError(EnvError):
    """The server answered with an error; `code` is OpenEnv's."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


class LostError(EnvError):
    """There is no connection, or none any more."""


class Remote:
    """A session with a server; it is opened when it is needed. Every wait has a deadline."""

    def __init__(self, url: str, patience_s: float) -> None:
        self.url, self._patience_s = url.rstrip("/"), patience_s
        self._socket: ClientConnection | None = None
        self._open = ExitStack()

    def reset(self, data: Mapping[str, Json], due: float | None = None) -> Shown:
        """Begin an episode; over a new connection if the old one is gone, and as soon as a session
        is free, until `due` (by `time.monotonic`) if it is given.

        Raises:
            RefusedError: the server reports an error.
            LostError: it cannot be reached.
            DeadlineError: it did not answer in time.
        """
        due = time.monotonic() + self._patience_s if due is None else due
        was_open = self._socket is not None
        while True:
            try:
                return _shown(self._ask({"type": "reset", "data": data}, due))
            except LostError:
                if not was_open:
                    raise
                was_open = False
            except RefusedError as error:
                if error.code != FULL or time.monotonic() + BUSY_S > due:
                    raise
                self.close()
                time.sleep(BUSY_S)

    def step(self, action: Mapping[str, Json]) -> Shown:
        """Act. Raises as `reset` does; a lost connection is not opened again."""
        if self._socket is None:
            raise LostError(f"{self.url}: the connection was closed, and the episode with it")
        due = time.monotonic() + self._patience_s
        return _shown(self._ask({"type": "step", "data": action}, due))

    def close(self) -> None:
        """End the session; may be called twice."""
        socket, self._socket = self._socket, None
        if socket is None:
            return
        from websockets.exceptions import WebSocketException

        with suppress(WebSocketException, OSError):
            socket.send('{"type": "close"}')
        with suppress(WebSocketException, OSError):
            self._open.close()

    def _ask(self, message: Mapping[str, object], due: float) -> Mapping[str, object]:
        """The data of the answer. Whatever goes wrong closes the connection, but for an error that
        the server reports."""
        socket = self._socket or self._connect(due)
        from websockets.exceptions import ConnectionClosed

        try:
            with suppress(ConnectionClosed):  # why it was closed may wait to be read
                socket.send(json.dumps(message))
            answer = json.loads(socket.recv(timeout=max(due - time.monotonic(), 0.0)))
        except TimeoutError:
            self.close()
            raise DeadlineError(
                f"{self.url} did not answer within {self._patience_s:g} s (env.patience_s)"
            ) from None
        except (ConnectionClosed, OSError) as error:
            self.close()
            raise LostError(f"{self.url}: the connection was lost: {error}") from error
        except ValueError as error:
            self.close()
            raise EnvError(f"{self.url}: expected JSON, got something else ({error})") from error
        if not isinstance(answer, dict) or not isinstance(answer.get("data"), dict):
            self.close()
            raise EnvError(f"{self.url}: expected a message with data, got {answer!r:.200}")
        if answer.get("type") == "error":
            raise _refused(self.url, answer["data"])
        return cast("Mapping[str, object]", answer["data"])

    def _connect(self, due: float) -> ClientConnection:
        try:
            from websockets.exceptions import WebSocketException
            from websockets.sync.client import connect
        except ImportError as error:
            raise MissingExtraError("websockets", "openenv") from error
        try:
            connection = connect(
                f"ws{self.url.removeprefix('http')}/ws",
                open_timeout=max(due - time.monotonic(), 0.1),
                close_timeout=CLOSING_S,
                max_size=LARGEST,
                logger=QUIET,
                proxy=None if _is_here(self.url) else True,
            )
            self._socket = self._open.enter_context(connection)
        except (WebSocketException, OSError) as error:
            raise LostError(
                f"{self.url}: no OpenEnv server can be reached there: "
                f"{type(error).__name__}: {error}"
            ) from error
        return self._socket


def schemas(url: str, patience_s: float) -> Mapping[str, Mapping[str, Json]]:
    """The server's JSON schemas: of an `action`, an `observation` and the `state`.

    Raises:
        ConfigError: there is no OpenEnv server at `url`.
    """
    import httpx

    place = f"{url.rstrip('/')}/schema"
    try:
        answer = httpx.get(place, timeout=patience_s, trust_env=not _is_here(url))
        answer.raise_for_status()
        found = answer.json()
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise ConfigError(
            f"env.url: no OpenEnv server answers at {place} ({type(error).__name__}: {error})"
        ) from error
    if not isinstance(found, dict) or not isinstance(found.get("action"), dict):
        raise ConfigError(f"env.url: expected OpenEnv's schemas at {place}, got {found!r:.200}")
    return found


def _is_here(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    with suppress(ValueError):
        return ip_address(host).is_loopback
    return host == "localhost"


def _shown(data: Mapping[str, object]) -> Shown:
    observation, reward = data.get("observation"), data.get("reward")
    number = 0.0 if reward is None else reward
    if not isinstance(observation, dict) or not isinstance(number, int | float):
        raise EnvError(f"expected an observation and a reward, got {data!r:.200}")
    return Shown(observation, float(number), bool(data.get("done")))


def _refused(url: str, data: Mapping[str, object]) -> RefusedError:
    """The error, with what did not fit where a message was not valid."""
    errors = data.get("errors")
    faults = [
        f"{'.'.join(map(str, one.get('loc') or ()))}: {one.get('msg')}"
        for one in (errors if isinstance(errors, list) else ())
        if isinstance(one, dict)
    ]
    code = str(data.get("code"))
    advice = [ADVICE] if code == FULL else []
    said = "; ".join([str(data.get("message")), *faults, *advice])
    return RefusedError(f"{url}: {said}", code)
