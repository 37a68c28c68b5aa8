"""Pages of the system's Chromium for environments: one browser for all episodes of an event loop.

    page_lease = await lease(BrowserSettings(), viewport=(800, 600))
    try:
        await page_lease.call(page_lease.page.goto(url), "opening the page")
    finally:
        await page_lease.give_back()
    await close_idle()          # in Env.close: ends the loop's browsers that nobody uses

Each lease is a context (cookies and storage of its own) with one page. A browser that hangs, dies
or is disconnected costs the episodes in it, each of which gets an error; the next lease finds
another one. Nothing is asked of any host but this machine's own and those of `hosts`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import shutil
import sys
from asyncio import AbstractEventLoop
from collections.abc import Coroutine, Generator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Generic, TypeVar

from annotated_types import Ge, Gt

from agentrl.core.errors import DeadlineError, EnvError, MissingExtraError
from agentrl.envs.browser.chromium import Chromium, find_chromium
from agentrl.envs.browser.page import (
    CLOSE_S,
    PROBE_S,
    BrowserDeadlineError,
    BrowserError,
    PageLease,
    forbidden,
)

if TYPE_CHECKING:
    from playwright.async_api import Browser as PlaywrightBrowser
    from playwright.async_api import Playwright

__all__ = ["BrowserDeadlineError", "BrowserError", "BrowserSettings", "PageLease", "lease"]

T = TypeVar("T")
_log = logging.getLogger(__name__)
GONE = "the browser ended"
DRIVER = Path(__file__).with_name("driver.sh")
NODE = "PLAYWRIGHT_NODEJS_PATH"
"""Names the program that runs Playwright's driver."""
OPENING = 4
"""Pages that a browser opens at a time: more at once are each as slow as all of them together."""


def _set_apart() -> None:
    """Let Playwright start its driver by `driver.sh`, unless somebody else said how."""
    if NODE not in os.environ and os.access(DRIVER, os.X_OK) and shutil.which("setsid"):
        node = Path(sys.modules["playwright"].__path__[0], "driver", "node")
        os.environ |= {"AGENTRL_NODE": str(node), NODE: str(DRIVER)}


@dataclass(frozen=True, kw_only=True)
class BrowserSettings:
    """How an env's browser is found, limited and renewed (config section `env.browser`)."""

    chromium: Path | None = None
    """The browser's program; `none` takes the variable AGENTRL_CHROMIUM, or the PATH."""
    timeout_s: Annotated[float, Gt(0)] = 10.0
    """Seconds that a call may take."""
    launch_timeout_s: Annotated[float, Gt(0)] = 30.0
    """Seconds that a browser may take to start."""
    contexts: Annotated[int, Ge(1)] = 16
    """Pages that one browser serves at a time; with more, another browser is started."""
    episodes_per_context: Annotated[int, Ge(1)] = 200
    """Episodes after which an env asks for a new page."""
    leases_per_browser: Annotated[int, Ge(1)] = 500
    """Pages lent after which a browser is replaced."""
    roots: tuple[Path, ...] = ()
    """Folders whose files pages may load by `file://`, besides the env's own."""
    hosts: tuple[str, ...] = ()
    """Hosts that pages may speak to, besides this machine."""
    accepts_dialogs: bool = False
    """Answer dialogs with OK; else they are dismissed."""


class Undrawn(Generic[T]):
    """A coroutine whose first step leaves the global random generator as it was: Playwright draws
    the name of its connection there."""

    def __init__(self, coroutine: Coroutine[Any, Any, T]) -> None:
        self._coroutine = coroutine

    def __await__(self) -> Generator[Any, Any, T]:
        steps = self._coroutine.__await__()
        state = random.getstate()
        waits_for = next(steps)
        random.setstate(state)
        try:
            yield waits_for
        except BaseException as error:  # noqa: BLE001 - it is the coroutine's to handle
            yield steps.throw(error)
        return (yield from steps)


class Browser:
    """A Chromium and the Playwright driver that speaks to it."""

    def __init__(self, settings: BrowserSettings) -> None:
        self.settings = settings
        self._fault = ""
        self.is_retired = False
        """It lends nothing any more, and is closed when the last page is back."""
        self.taken = 0
        """Pages lent, or about to be."""
        self.served = 0
        """Pages lent so far."""
        self.error: type[Exception] = Exception
        """What Playwright raises."""
        self._turn = asyncio.Semaphore(OPENING)
        self._chromium: Chromium | None = None
        self._driver: Playwright | None = None
        self._browser: PlaywrightBrowser | None = None

    @property
    def fault(self) -> str:
        """Why it can be used no more."""
        if self._chromium is not None and not self._chromium.is_running:
            self._note(GONE)
        return self._fault

    @property
    def is_spent(self) -> bool:
        """Whether it lends nothing any more."""
        is_old = self.served >= self.settings.leases_per_browser
        return bool(self.is_retired or self.fault or is_old)

    @property
    def pid(self) -> int | None:
        """The process that leads Chromium's group."""
        return None if self._chromium is None else self._chromium.process.pid

    async def open(self) -> None:
        """Start it. Raises `BrowserError`, `MissingExtraError`, `ConfigError`."""
        try:
            from playwright.async_api import Error, async_playwright
        except ImportError as error:
            raise MissingExtraError("playwright", "gui") from error
        self.error = Error
        _set_apart()
        program = find_chromium(self.settings.chromium)
        limit = self.settings.launch_timeout_s
        try:
            async with asyncio.timeout(limit):
                self._chromium = Chromium(program, self._network_flags())
                driver = await Undrawn(async_playwright().start())
                self._driver = driver
                self._browser = await driver.chromium.connect_over_cdp(
                    await self._chromium.endpoint(limit),
                    artifacts_dir=self._chromium.folder,
                    is_local=True,
                )
        except (TimeoutError, DeadlineError) as error:
            await self.close(f"it did not start within {limit:g} s (env.browser.launch_timeout_s)")
            raise BrowserDeadlineError(f"browser: {self.fault}") from error
        except (EnvError, Error, OSError) as error:
            await self.close(f"it did not start: {error}")
            raise BrowserError(f"browser: {self.fault}") from error
        except BaseException:
            await self.close("its start was given up")
            raise
        self._browser.on("disconnected", lambda _: self._note(GONE))

    def _note(self, why: str) -> None:
        self._fault = self._fault or why

    def _network_flags(self) -> list[str]:
        known = ("localhost", "127.0.0.1", "[::1]", *self.settings.hosts)
        rules = ["MAP * ~NOTFOUND", *(f"EXCLUDE {host}" for host in known)]
        return [f"--host-resolver-rules={', '.join(rules)}", "--proxy-server=direct://"]

    async def lend(
        self, viewport: tuple[int, int], touch: bool, scale: float, roots: tuple[Path, ...]
    ) -> PageLease:
        """A new page. Raises `BrowserError`: whoever asked is better off with another browser."""
        async with self._turn:
            if self.is_retired or self.fault:
                raise BrowserError(f"browser: {self.fault or 'it opened no page before'}")
            return await self._opened(viewport, touch, scale, roots)

    async def _opened(
        self, viewport: tuple[int, int], touch: bool, scale: float, roots: tuple[Path, ...]
    ) -> PageLease:
        assert self._browser is not None
        self.served += 1
        limit = self.settings.timeout_s
        try:
            async with asyncio.timeout(limit):
                context = await self._browser.new_context(
                    viewport={"width": viewport[0], "height": viewport[1]},
                    device_scale_factor=scale,
                    has_touch=touch,
                    is_mobile=touch,
                    accept_downloads=False,
                    service_workers="block",
                    locale="en-US",
                    timezone_id="UTC",
                    color_scheme="light",
                    reduced_motion="reduce",
                )
                context.set_default_timeout(1_000 * limit)
                page_lease = PageLease(self, context, await context.new_page(), scale)
                await page_lease.watch(
                    forbidden((*self.settings.roots, *roots), self.settings.hosts)
                )
                return page_lease
        except TimeoutError as error:
            self._suspect()
            raise BrowserDeadlineError(f"browser: it opened no page within {limit:g} s") from error
        except self.error as error:
            self._suspect()
            raise BrowserError(f"browser: it opened no page: {error}") from error

    def take_back(self, *, is_sound: bool = True) -> None:
        """One page less is lent. One whose context could not be closed retires the browser."""
        self.taken -= 1
        self.is_retired = self.is_retired or not is_sound

    async def settle(self) -> None:
        """After a page is back: a retired browser that does not answer loses its other pages too;
        one that lends nothing any more is closed."""
        if self.is_retired and not self.fault and not await self.is_healthy():
            self._note("it does not answer any more")
        if self.fault or (self.is_spent and self.taken == 0):
            await self.close("it was replaced")

    def _suspect(self) -> None:
        """Lend nothing any more; whether it answers is looked at when this page is back."""
        self.is_retired = True

    async def is_healthy(self) -> bool:
        """Whether it answers within 2 seconds."""
        assert self._browser is not None
        with suppress(TimeoutError, self.error):
            async with asyncio.timeout(PROBE_S):
                session = await self._browser.new_browser_cdp_session()
                await session.send("Browser.getVersion")
                await session.detach()
                return True
        return False

    async def close(self, why: str) -> None:
        """End it, and remove what it wrote; never raises, and may be called twice."""
        self._note(why)
        chromium, self._chromium = self._chromium, None
        driver, self._driver = self._driver, None
        if chromium is not None:
            await chromium.close()
        if driver is not None:
            with suppress(TimeoutError, self.error):
                async with asyncio.timeout(CLOSE_S):
                    await driver.stop()

    def abandon(self) -> None:
        """Its event loop is gone: end the processes."""
        self._note("its event loop ended")
        if self._chromium is not None:
            self._chromium.end()


class Pool:
    """The browsers of one event loop."""

    def __init__(self) -> None:
        self.browsers: list[Browser] = []
        self._opening = asyncio.Lock()

    async def lease(
        self,
        settings: BrowserSettings,
        viewport: tuple[int, int],
        touch: bool,
        scale: float,
        roots: tuple[Path, ...],
    ) -> PageLease:
        """A page of a browser that works; a browser that fails is replaced once."""
        browser = await self._take(settings)
        try:
            return await self._lend(browser, viewport, touch, scale, roots)
        except BrowserError as error:
            _log.warning("%s; starting another browser", error)
        return await self._lend(await self._take(settings), viewport, touch, scale, roots)

    async def _lend(
        self,
        browser: Browser,
        viewport: tuple[int, int],
        touch: bool,
        scale: float,
        roots: tuple[Path, ...],
    ) -> PageLease:
        try:
            return await browser.lend(viewport, touch, scale, roots)
        except BaseException as error:
            browser.take_back()
            if isinstance(error, BrowserError):
                await browser.settle()
            raise

    async def _take(self, settings: BrowserSettings) -> Browser:
        async with self._opening:
            for lost in [b for b in self.browsers if b.fault]:
                self.browsers.remove(lost)
                await lost.close("it failed")
            for browser in self.browsers:
                is_free = not browser.is_spent and browser.taken < settings.contexts
                if browser.settings == settings and is_free:
                    break
            else:
                browser = Browser(settings)
                await browser.open()
                self.browsers.append(browser)
            browser.taken += 1
            return browser

    async def close_idle(self) -> None:
        """End the browsers of which no page is lent."""
        async with self._opening:
            for browser in [b for b in self.browsers if b.taken == 0 or b.fault]:
                self.browsers.remove(browser)
                await browser.close("it was closed")


_pools: dict[AbstractEventLoop, Pool] = {}


def pool_here() -> Pool:
    """The running event loop's pool; those of loops that ended are swept away."""
    for loop in [loop for loop in list(_pools) if loop.is_closed()]:
        for browser in _pools.pop(loop).browsers:
            browser.abandon()
    return _pools.setdefault(asyncio.get_running_loop(), Pool())


async def lease(
    settings: BrowserSettings,
    *,
    viewport: tuple[int, int],
    touch: bool = False,
    scale: float = 1,
    roots: tuple[Path, ...] = (),
) -> PageLease:
    """A page in a context of its own; a browser is started or replaced where that is needed.

    Args:
        settings: envs with equal settings share browsers.
        viewport: width and height in CSS pixels.
        touch: a touch screen and a mobile layout.
        scale: device pixels per CSS pixel.
        roots: folders whose files the page may load, besides those of the settings.

    Raises:
        BrowserError: no browser could be had.
        ConfigError: there is no Chromium.
        MissingExtraError: playwright is not installed.
    """
    return await pool_here().lease(settings, viewport, touch, scale, roots)


async def close_idle() -> None:
    """End this event loop's browsers of which no page is lent."""
    pool = _pools.get(asyncio.get_running_loop())
    if pool is not None:  # it stays: somebody may be about to open a browser in it
        await pool.close_idle()
