"""`agentrl serve-vllm`: one server in the foreground, started as the engine needs it.

The run that uses it (`engine={name: vllm, urls: [...]}`) pushes its weights there, so the server
must see the same memory: the same machine, or a folder that both share.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from agentrl.core.errors import ConfigError, EngineError
from agentrl.engines.vllm.engine import Vllm
from agentrl.engines.vllm.server import Server, ServerSettings

POLL_S = 0.2


def serve(
    folder: Path,
    engine: Vllm,
    *,
    host: str,
    port: int,
    max_len: int | None,
    lora_rank: int,
    say: Callable[[str], None],
) -> None:
    """Serve the model in `folder` until it ends or Ctrl-C comes; its output goes to `say`.

    Raises:
        ConfigError: settings that a single server cannot have.
        EngineError: it cannot be started, or it ended.
    """
    if engine.urls or engine.replicas != 1:
        raise ConfigError("serve-vllm starts one server: leave out urls and replicas")
    key = engine.api_key or os.environ.get(engine.api_key_from, "") or secrets.token_urlsafe(16)
    settings = replace(
        engine.settings_of(engine.dtype, engine.gpus, max_len, lora_rank),
        host=host,
        port=port,
        api_key=key,
    )
    asyncio.run(_serve(folder, settings, engine, say))


async def _serve(
    folder: Path, settings: ServerSettings, engine: Vllm, say: Callable[[str], None]
) -> None:
    with tempfile.TemporaryDirectory(prefix="agentrl-vllm-") as made:
        server = Server(settings=settings, log=Path(made) / "server.log")
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_follow(server.log, say))
                await server.start(folder, engine.start_s)
                say(f"ready: engine.name=vllm engine.urls=[{server.url}]")
                say(f"with {engine.api_key_from}={server.api_key} in the environment of the run")
                while server.is_alive:
                    await asyncio.sleep(POLL_S)
                raise EngineError(server.obituary())
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0] from None
        finally:
            await server.stop()


async def _follow(log: Path, say: Callable[[str], None]) -> None:
    """Hand on what is written to a log."""
    at = 0
    while True:
        await asyncio.sleep(POLL_S)
        if log.exists():
            with log.open("rb") as file:
                file.seek(at)
                lines, newline, _ = file.read().rpartition(b"\n")
            if newline:
                at += len(lines) + 1
                say(lines.decode(errors="replace"))
