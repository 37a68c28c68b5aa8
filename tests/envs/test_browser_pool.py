"""The browser pool: leases, what pages do unasked, no network, recovery, nothing left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from agentrl.core.errors import ConfigError
from agentrl.envs.browser.chromium import find_chromium
from agentrl.envs.browser.pool import (
    BrowserDeadlineError,
    BrowserError,
    BrowserSettings,
    PageLease,
    close_idle,
    lease,
    pool_here,
)
from support.browsers import alive_with, kept_browser

SETTINGS = BrowserSettings(timeout_s=20.0)
SIZE = (320, 240)

needs_chromium = pytest.mark.browser


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.Runner]:
    with kept_browser(SETTINGS) as runner:
        yield runner


def play(script: Callable[[], Awaitable[None]], loop: asyncio.Runner | None = None) -> None:
    """Run a test's coroutine, and end its browsers; in `loop` one is kept."""

    async def whole() -> None:
        async with asyncio.timeout(50):
            try:
                await script()
            finally:
                await close_idle()

    (loop.run if loop is not None else asyncio.run)(whole())


async def show(page_lease: PageLease, html: str) -> None:
    await page_lease.call(page_lease.page.set_content(html), "the test's page")


async def ask(page_lease: PageLease, script: str, timeout_s: float | None = None) -> object:
    return await page_lease.call(page_lease.page.evaluate(script), "the script", timeout_s)


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0.02)


def folders() -> set[Path]:
    """Those of this process's browsers."""
    return set(Path(tempfile.gettempdir()).glob(f"agentrl-browser-{os.getpid()}-*"))


def alive_besides(kept: set[Path]) -> set[int]:
    """Processes of this process's browsers that use none of these folders."""
    mine = alive_with(f"agentrl-browser-{os.getpid()}-")
    return set(mine).difference(*(alive_with(str(folder)) for folder in kept))


def test_a_missing_chromium_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("AGENTRL_CHROMIUM", raising=False)
    with pytest.raises(ConfigError, match=r"install chromium-headless-shell.*AGENTRL_CHROMIUM"):
        find_chromium()


def test_the_setting_wins_over_the_variable_and_that_over_the_path(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("chromium", "chromium-headless-shell", "mine", "named"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("AGENTRL_CHROMIUM", raising=False)
    assert find_chromium() == tmp_path / "chromium-headless-shell"
    (tmp_path / "chromium-headless-shell").unlink()
    assert find_chromium() == tmp_path / "chromium"
    monkeypatch.setenv("AGENTRL_CHROMIUM", str(tmp_path / "named"))
    assert find_chromium() == tmp_path / "named"
    assert find_chromium(tmp_path / "mine") == tmp_path / "mine"
    with pytest.raises(ConfigError, match=r"env\.browser\.chromium: .*absent"):
        find_chromium(tmp_path / "absent")


@needs_chromium
def test_requests_beyond_this_machine_fail_and_are_counted(loop: asyncio.Runner) -> None:
    async def script() -> None:
        page_lease = await lease(SETTINGS, viewport=SIZE)
        await show(page_lease, "<p>here</p>")
        urls = ["http://example.com/", "https://192.0.2.7/", "file:///etc/passwd"]
        tried = "url => fetch(url).then(() => 'answered', () => 'refused')"
        for url in urls:
            answer = page_lease.page.evaluate(tried, url)
            assert await page_lease.call(answer, "the request") == "refused"
        assert page_lease.counts["blocked"] >= 2  # the page's own rules stop the file before us
        with pytest.raises(BrowserError, match="BLOCKED_BY_CLIENT"):
            await page_lease.call(page_lease.page.goto("file:///etc/passwd"), "a file of others")
        with pytest.raises(BrowserError, match="BLOCKED_BY_CLIENT"):
            await page_lease.call(page_lease.page.goto("http://example.com/"), "another host")
        await page_lease.give_back()

    play(script, loop)


@needs_chromium
def test_files_are_read_below_the_roots_only(loop: asyncio.Runner, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "page.html").write_text("<title>inside</title>")
    (tmp_path / "out.html").write_text("<title>outside</title>")

    async def script() -> None:
        inside = (tmp_path / "in").as_uri()
        page_lease = await lease(SETTINGS, viewport=SIZE, roots=(tmp_path / "in",))
        await page_lease.call(page_lease.page.goto(f"{inside}/page.html"), "a page inside")
        assert await ask(page_lease, "document.title") == "inside"
        for url in (f"{inside}/../out.html", f"{inside}/..%2Fout.html", f"{inside}x/page.html"):
            with pytest.raises(BrowserError):
                await page_lease.call(page_lease.page.goto(url), "a page outside")
        await page_lease.give_back()

    play(script, loop)


@needs_chromium
def test_what_a_page_does_unasked_is_counted_and_the_page_goes_on(loop: asyncio.Runner) -> None:
    async def script() -> None:
        page_lease = await lease(SETTINGS, viewport=SIZE)
        page_lease.begin()
        await show(page_lease, "<a id=a download=x href='data:text/plain,x'>x</a>")
        assert await ask(page_lease, "confirm('sure?')") is False
        await ask(page_lease, "() => { window.open('about:blank'); a.click(); }")
        await until(lambda: page_lease.counts["popups"] and page_lease.counts["downloads"])
        assert page_lease.counts["dialogs"] == 1
        assert page_lease.said == ["sure?"]
        await until(lambda: len(page_lease.context.pages) == 1)
        await page_lease.call(page_lease.page.goto("about:blank"), "leaving")
        assert page_lease.counts["navigations"] >= 1
        assert await page_lease.is_healthy()
        page_lease.begin()
        assert not page_lease.counts.total()
        await page_lease.give_back()

    play(script, loop)


@needs_chromium
def test_a_page_in_a_loop_breaks_its_own_lease_in_time_and_no_other(loop: asyncio.Runner) -> None:
    async def script() -> None:
        stuck = await lease(SETTINGS, viewport=SIZE)
        other = await lease(SETTINGS, viewport=SIZE)
        began = time.monotonic()
        with pytest.raises(BrowserDeadlineError, match=r"the script did not answer within 0\.5 s"):
            await ask(stuck, "() => { for (;;) {} }", 0.5)
        assert time.monotonic() - began < 5
        assert stuck.is_broken
        with pytest.raises(BrowserError, match="not possible: the script did not answer"):
            await ask(stuck, "1")
        await stuck.give_back()
        assert await ask(other, "6 * 7") == 42
        await other.give_back()

    play(script, loop)


@needs_chromium
def test_a_crashed_renderer_breaks_its_own_lease_and_no_other(loop: asyncio.Runner) -> None:
    async def script() -> None:
        crashed = await lease(SETTINGS, viewport=SIZE)
        other = await lease(SETTINGS, viewport=SIZE)
        with pytest.raises(BrowserError):
            await crashed.call(crashed.page.goto("chrome://crash"), "the crash")
        await until(lambda: crashed.is_broken)
        assert not await crashed.is_healthy()
        await crashed.give_back()
        assert await ask(other, "6 * 7") == 42
        await other.give_back()

    play(script, loop)


@needs_chromium
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_dead_or_frozen_browser_is_replaced(number: int) -> None:
    async def script() -> None:
        lost = await lease(SETTINGS, viewport=SIZE)
        first = pool_here().browsers[0]
        assert first.pid is not None
        os.killpg(first.pid, number)
        with pytest.raises(BrowserError):
            await ask(lost, "1", 1.0)
        await lost.give_back()
        found = await lease(SETTINGS, viewport=SIZE)
        assert first not in pool_here().browsers
        assert await ask(found, "6 * 7") == 42
        await found.give_back()

    play(script)


@needs_chromium
def test_more_dialogs_than_anyone_needs_break_the_page(loop: asyncio.Runner) -> None:
    async def script() -> None:
        page_lease = await lease(SETTINGS, viewport=SIZE)
        with pytest.raises(BrowserError):
            await ask(page_lease, "() => { for (;;) alert('again'); }", 30.0)
        await page_lease.give_back()
        assert page_lease.counts["dialogs"] > 50
        assert "dialogs" in page_lease.fault

    play(script, loop)


@needs_chromium
def test_old_pages_and_browsers_are_replaced() -> None:
    async def script() -> None:
        settings = BrowserSettings(episodes_per_context=2, leases_per_browser=2, timeout_s=20.0)
        page_lease = await lease(settings, viewport=SIZE)
        page_lease.begin()
        due = [page_lease.is_due]
        page_lease.begin()
        assert [*due, page_lease.is_due] == [False, True]
        await page_lease.give_back()
        [first] = pool_here().browsers
        held = await lease(settings, viewport=SIZE)
        assert held.is_due
        other = await lease(settings, viewport=SIZE)
        assert len(pool_here().browsers) == 2
        assert await ask(held, "6 * 7") == 42
        await held.give_back()
        assert first.fault == "it was replaced"
        await other.give_back()

    play(script)


@needs_chromium
def test_touch_and_scale_reach_the_page(loop: asyncio.Runner) -> None:
    async def script() -> None:
        page_lease = await lease(SETTINGS, viewport=(390, 844), touch=True, scale=2)
        phone = "data:text/html,<meta name=viewport content='width=device-width'>"
        await page_lease.call(page_lease.page.goto(phone), "the test's page")
        seen = await ask(page_lease, "[innerWidth, devicePixelRatio, 'ontouchstart' in window]")
        assert seen == [390, 2, True]
        await page_lease.give_back()

    play(script, loop)


@needs_chromium
def test_a_page_asked_for_while_idle_browsers_are_closed_is_known_to_the_pool() -> None:
    kept = folders()

    async def script() -> None:
        await (await lease(SETTINGS, viewport=SIZE)).give_back()
        closing = asyncio.create_task(close_idle())
        await asyncio.sleep(0)
        page_lease = await lease(SETTINGS, viewport=SIZE)
        await closing
        [browser] = pool_here().browsers
        assert browser.taken == 1
        await page_lease.give_back()

    play(script)
    assert folders() == kept
    assert not alive_besides(kept)


@needs_chromium
def test_a_page_whose_return_is_given_up_is_back_all_the_same() -> None:
    kept = folders()

    async def script() -> None:
        page_lease = await lease(SETTINGS, viewport=SIZE)
        [browser] = pool_here().browsers
        returning = asyncio.create_task(page_lease.give_back())
        await asyncio.sleep(0)
        returning.cancel()
        with pytest.raises(asyncio.CancelledError):
            await returning
        assert (browser.taken, browser.is_retired) == (0, True), "it may still hold the page"
        other = await lease(SETTINGS, viewport=SIZE)
        await other.give_back()
        await close_idle()
        assert not pool_here().browsers
        await until(lambda: not alive_besides(kept))

    play(script)


@needs_chromium
def test_closing_leaves_no_process_and_no_folder() -> None:
    used: list[tuple[Path, int]] = []

    async def script() -> None:
        page_lease = await lease(SETTINGS, viewport=SIZE)
        chromium = pool_here().browsers[0]._chromium
        assert chromium is not None
        used.append((chromium.folder, chromium.process.pid))
        assert len(alive_with(str(chromium.folder), chromium.process.pid)) > 2
        await page_lease.give_back()

    play(script)
    [(folder, group)] = used
    assert not folder.exists()
    assert not alive_with(str(folder), group)


ABANDONED = """
import asyncio, sys
from agentrl.envs.browser.pool import BrowserSettings, lease, pool_here

async def main():
    await lease(BrowserSettings(timeout_s=20.0), viewport=(100, 100))
    chromium = pool_here().browsers[0]._chromium
    print(chromium.folder, chromium.process.pid, flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


@needs_chromium
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_outlives_a_killed_process(number: int) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", ABANDONED], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        folder, group = process.stdout.readline().split()
        assert Path(folder).is_dir()
        assert len(alive_with(folder, int(group))) > 2
        os.killpg(process.pid, number)
        process.wait(10)
    until_s = time.monotonic() + 10
    while Path(folder).exists() or (left := alive_with(folder, int(group))):
        assert time.monotonic() < until_s, (Path(folder).exists(), left)
        time.sleep(0.05)
