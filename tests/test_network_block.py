import asyncio
import socket

import pytest

BEYOND = ("192.0.2.1", 9)  # reserved for documentation: nobody answers there


def test_connecting_beyond_loopback_is_refused() -> None:
    with socket.socket() as client, pytest.raises(RuntimeError, match=r"not '192\.0\.2\.1'"):
        client.connect(BEYOND)
    with socket.socket() as client, pytest.raises(RuntimeError, match=r"not '192\.0\.2\.1'"):
        client.connect_ex(BEYOND)


def test_resolving_a_name_is_refused() -> None:
    with pytest.raises(RuntimeError, match="not 'example\\.org'"):
        socket.create_connection(("example.org", 80), timeout=1)


def test_asyncio_is_refused_too() -> None:
    async def connect() -> None:
        await asyncio.open_connection(*BEYOND)

    with pytest.raises(RuntimeError, match=r"not '192\.0\.2\.1'"):
        asyncio.run(connect())


def test_loopback_stays_open() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(("localhost", server.getsockname()[1]), timeout=5) as client,
        server.accept()[0] as peer,
    ):
        client.sendall(b"ping")
        assert peer.recv(4) == b"ping"
