"""A browser that stays open from test to test: starting one takes longer than most tests do."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from agentrl.envs.browser.pool import BrowserSettings, close_idle, lease
from agentrl.envs.webapps.env import WebApps

Played = Callable[[WebApps, Callable[[], Awaitable[None]]], None]
"""Plays with an env and closes it."""


def alive_with(text: str, group: int | None = None) -> list[int]:
    """Processes whose command line holds `text`, or that are of a process group: what headless
    shells start does not say whose it is."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            state, _, its = (folder / "stat").read_text().rpartition(") ")[2].split()[:3]
            is_mine = int(its) == group or text.encode() in (folder / "cmdline").read_bytes()
            found += [int(folder.name)] if is_mine and state != "Z" else []
    return found


@contextmanager
def kept_browser(settings: BrowserSettings | None = None) -> Iterator[asyncio.Runner]:
    """An event loop with a browser of which a page stays lent, so that no env's `close` ends it."""
    with asyncio.Runner() as runner:
        kept = runner.run(lease(settings or BrowserSettings(), viewport=(100, 100)))
        try:
            yield runner
        finally:
            runner.run(kept.give_back())
            runner.run(close_idle())


def player(loop: asyncio.Runner) -> Played:
    """`Played` in an event loop."""

    def played(env: WebApps, play: Callable[[], Awaitable[None]]) -> None:
        async def whole() -> None:
            try:
                await play()
            finally:
                await env.close()

        loop.run(whole())

    return played
