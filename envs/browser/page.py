"""A page that is lent: every call has a deadline, and what the page does unasked is counted.

Dialogs are answered, popups closed, downloads refused and requests beyond what is allowed stopped;
each is counted in `PageLease.counts`. What ends the page itself (a crash, a hang, the end of its
browser) breaks the lease: from then on every call raises at once.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import Awaitable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from agentrl.core.errors import DeadlineError, EnvError
from agentrl.core.types import Json

if TYPE_CHECKING:
    from playwright.async_api import (
        BrowserContext,
        CDPSession,
        Dialog,
        Frame,
        Page,
        Route,
        WebSocket,
    )

    from agentrl.envs.browser.pool import Browser

T = TypeVar("T")
CLOSE_S = 5.0
"""Seconds that closing a context may take."""
PROBE_S = 2.0
"""Seconds within which a healthy page answers."""
MOST_DIALOGS = 50
"""Dialogs of one episode; with one more the page counts as broken."""
LOOPBACK = (r"localhost", r"127\.0\.0\.1", r"\[::1\]")


class BrowserError(EnvError):
    """The page or its browser failed: an episode that is lost to it is a counted failure."""


class BrowserDeadlineError(BrowserError, DeadlineError):
    """The page or its browser did not answer in time."""


def forbidden(roots: Iterable[Path], hosts: Iterable[str]) -> re.Pattern[str]:
    """Matches every URL but those of this machine, of `hosts`, and of files below `roots`."""
    names = "|".join((*LOOPBACK, *(re.escape(host) for host in hosts)))
    allowed = [r"about:", r"data:", r"blob:", rf"(?:https?|wss?):\/\/(?:{names})(?:[:\/]|$)"]
    for root in roots:
        start = re.escape(root.resolve().as_uri().rstrip("/")).replace("/", r"\/")
        allowed.append(rf"{start}\/(?!.*(?:%2f|%5c|%2F|%5C))")
    return re.compile(f"^(?!{'|'.join(allowed)})")


class PageLease:
    """A page in a context of its own, until it is given back.

    `counts` of the episode: `dialogs`, `popups`, `downloads`, `blocked` (requests), `navigations`
    (of the page itself, the first one included) and `errors` (uncaught ones of its scripts).
    """

    def __init__(self, browser: Browser, context: BrowserContext, page: Page, scale: float) -> None:
        self.page = page
        self.context = context
        self.scale = scale
        """Device pixels per CSS pixel."""
        self.counts: Counter[str] = Counter()
        self.said: list[str] = []
        """The messages of this episode's dialogs."""
        self.limit_s = browser.settings.timeout_s
        """Seconds that a call may take."""
        self.episodes = 0
        """Episodes that were begun here."""
        self.fault = ""
        """Why it can be used no more."""
        self._browser = browser
        self._is_over = False
        self._waiting: set[asyncio.Timeout] = set()
        self._session: CDPSession | None = None

    async def watch(self, stopped: re.Pattern[str]) -> None:
        """Begin to count, and stop requests that `stopped` matches."""

        async def stop(route: Route) -> None:
            self.counts["blocked"] += 1
            with suppress(self._browser.error):
                await route.abort("blockedbyclient")

        async def close_popup(page: Page) -> None:
            self.counts["popups"] += 1
            with suppress(self._browser.error):
                await page.close()

        def count_socket(socket: WebSocket) -> None:
            self.counts["blocked"] += stopped.search(socket.url) is not None

        def count_navigation(frame: Frame) -> None:
            self.counts["navigations"] += frame == self.page.main_frame

        await self.context.route(stopped, stop)
        self.context.on("page", close_popup)
        self.page.on("websocket", count_socket)
        self.page.on("framenavigated", count_navigation)
        self.page.on("dialog", self._answer)
        self.page.on("download", lambda _: self._count("downloads"))
        self.page.on("pageerror", lambda _: self._count("errors"))
        self.page.on("crash", lambda _: self.spoil("its renderer crashed"))
        self.page.on("close", lambda _: self.spoil("the page was closed"))

    def _count(self, what: str) -> None:
        self.counts[what] += 1

    async def _answer(self, dialog: Dialog) -> None:
        self.counts["dialogs"] += 1
        self.said.append(dialog.message[:200])
        if self.counts["dialogs"] > MOST_DIALOGS:
            self.spoil(f"it opened more than {MOST_DIALOGS} dialogs")
        accepts = self._browser.settings.accepts_dialogs or dialog.type == "beforeunload"
        with suppress(self._browser.error):
            await (dialog.accept() if accepts else dialog.dismiss())

    def begin(self) -> None:
        """Another episode begins: counts start from 0."""
        self.episodes += 1
        self.counts.clear()
        self.said.clear()

    def spoil(self, why: str) -> None:
        """Take it for broken; the first reason stays, and whoever waits for it waits no more."""
        self.fault = self.fault or why
        for scope in self._waiting:
            if not scope.expired():
                scope.reschedule(asyncio.get_running_loop().time())

    @property
    def is_broken(self) -> bool:
        """Whether calls would raise."""
        return bool(self.fault or self._browser.fault or self._is_over)

    @property
    def is_due(self) -> bool:
        """Whether it should be given back before another episode: broken, or used long enough."""
        is_old = self.episodes >= self._browser.settings.episodes_per_context
        return self.is_broken or is_old or self._browser.is_spent

    async def call(self, awaitable: Awaitable[T], what: str, timeout_s: float | None = None) -> T:
        """Wait for something of the page, `limit_s` seconds unless told otherwise.

        Raises:
            BrowserDeadlineError: it took longer; the lease is broken.
            BrowserError: it failed; the lease is broken if its page or browser is gone.
        """
        limit = self.limit_s if timeout_s is None else timeout_s
        if self.is_broken:
            if asyncio.iscoroutine(awaitable):
                awaitable.close()
            raise self._error(what)
        try:
            async with asyncio.timeout(limit) as scope:
                self._waiting.add(scope)
                try:
                    return await awaitable
                finally:
                    self._waiting.discard(scope)
        except TimeoutError as error:
            if self.is_broken:
                raise self._error(what) from error
            self.spoil(f"{what} did not answer within {limit:g} s")
            raise BrowserDeadlineError(
                f"browser: {what} did not answer within {limit:g} s (env.browser.timeout_s)"
            ) from error
        except asyncio.CancelledError:
            self.spoil(f"{what} was given up")
            raise
        except self._browser.error as error:
            await asyncio.sleep(0)  # the news of a crash may come just behind the error
            if self.is_broken:
                raise self._error(what) from error
            raise BrowserError(f"browser: {what} failed: {error}") from error

    async def read(self, function: str, argument: object, what: str) -> dict[str, Json]:
        """The object that a function of the page returns. It comes as JSON text, which for a list
        of elements is quicker than Playwright's own way. Raises `BrowserError`."""
        script = f"argument => JSON.stringify(({function})(argument))"
        return dict(json.loads(await self.call(self.page.evaluate(script, argument), what)))

    async def devtools(self) -> CDPSession:
        """The page's own line to the browser, past Playwright. Raises `BrowserError`."""
        if self._session is None:
            opened = self.context.new_cdp_session(self.page)
            self._session = await self.call(opened, "a line to the page")
        return self._session

    def _error(self, what: str) -> BrowserError:
        why = self._browser.fault or self.fault or "the page was given back"
        return BrowserError(f"browser: {what} is not possible: {why}")

    async def is_healthy(self) -> bool:
        """Whether the page answers within 2 seconds; one that does not is broken."""
        try:
            await self.call(self.page.evaluate("1"), "the probe", PROBE_S)
        except BrowserError:
            return False
        return True

    async def give_back(self, is_broken: bool = False) -> None:
        """Close the context; never raises, and may be called twice."""
        if self._is_over:
            return
        is_broken = is_broken or self.is_broken
        self._is_over = True
        is_closed = False
        try:
            with suppress(TimeoutError, self._browser.error):
                async with asyncio.timeout(CLOSE_S):
                    await self.context.close()
                    is_closed = True
        finally:  # whoever waits for this may be given up meanwhile
            self._browser.take_back(is_sound=is_closed)
        await self._browser.settle()
