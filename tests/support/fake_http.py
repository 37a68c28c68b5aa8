"""A small HTTP server in a thread of the test, for fakes: connections that stay, break and hang."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit


class Answer(Exception):  # noqa: N818 - what a request ends with, wherever it is
    """A status and a body."""

    def __init__(self, status: int, body: object = None) -> None:
        super().__init__(status)
        self.status, self.body = status, body


class Broken:
    """An answer of which half is sent."""

    def __init__(self, body: object) -> None:
        self.body = body


def dump(body: object) -> bytes:
    """JSON as vLLM writes it: NaN is refused."""
    return json.dumps(body, allow_nan=False).encode()


@dataclass(kw_only=True, eq=False)
class FakeHttp:
    """Answers with what `route` returns: JSON, text, or nothing for None."""

    port: int = 0
    api_key: str = ""
    guarded: tuple[str, ...] = ()
    """Paths below these want the key."""
    paths: list[str] = field(default_factory=list)
    """Of all requests."""
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)
    _server: asyncio.Server | None = None
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)
    _thread: threading.Thread | None = None

    async def before(self) -> None:
        """Comes before every answer."""

    async def route(
        self, method: str, path: str, query: Mapping[str, list[str]], body: dict[str, Any]
    ) -> object:
        """What is answered; raises `Answer` for any other status than 200."""
        raise NotImplementedError

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        ready = threading.Event()

        def work() -> None:
            asyncio.set_event_loop(self._loop)
            self._loop.run_until_complete(self.listen())
            ready.set()
            self._loop.run_forever()

        self._thread = threading.Thread(target=work, name="fake server", daemon=True)
        self._thread.start()
        assert ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        assert self._thread is not None
        self._thread.join(10)
        self._loop.close()

    async def listen(self) -> None:
        """Accept connections."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _end(self) -> None:
        if self._server is not None:
            self._server.close()
        for _ in range(5):  # a connection's task that is cancelled before it begins leaks it
            await asyncio.sleep(0)
        self.die()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def die(self) -> None:
        """What the others see of SIGKILL."""
        if self._server is not None:
            self._server.close()
        for writer in self._writers:
            writer.transport.abort()

    # --- HTTP -------------------------------------------------------------------------------------

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                headers = dict(line.lower().split(": ", 1) for line in head[1:] if ": " in line)
                method, target, _ = head[0].split(" ")
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                await self._answer(writer, method, target, headers, body)
                if headers.get("connection") == "close":
                    break
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _answer(
        self,
        writer: asyncio.StreamWriter,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: bytes,
    ) -> None:
        address = urlsplit(target)
        self.paths.append(address.path)
        await self.before()
        try:
            told = headers.get("authorization", "").removeprefix("bearer ")
            if (
                address.path.startswith(self.guarded)
                and self.api_key
                and told != self.api_key.lower()
            ):
                raise Answer(401, {"error": "Unauthorized"})
            given = json.loads(body) if body else {}
            answer = await self.route(method, address.path, parse_qs(address.query), given)
            status = 200
        except Answer as stop:
            status, answer = stop.status, stop.body
        is_text = isinstance(answer, str)
        data = str(answer).encode() if is_text else b"" if answer is None else dump(answer)
        kind = "text/plain" if is_text else "application/json"
        if isinstance(answer, Broken):
            data = dump(answer.body)
        writer.write(
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: {kind}\r\n"
            f"content-length: {len(data)}\r\n\r\n".encode()
        )
        if isinstance(answer, Broken):
            writer.write(data[: len(data) // 2])
            await writer.drain()
            await asyncio.sleep(0.02)
            writer.transport.abort()
            return
        writer.write(data)
        await writer.drain()
