"""The system's Chromium as a child process: found, started with an empty profile, ended whole.

It leads a process group of its own, keeps everything that it writes in one folder, and has a
guardian: a shell that waits for the end of a pipe which this process holds. However this process
ends, kill -9 included, the guardian then kills the group and removes the folder.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from agentrl.core.errors import ConfigError, DeadlineError, EnvError

VARIABLE = "AGENTRL_CHROMIUM"
NAMES = (
    *("chromium-headless-shell", "chrome-headless-shell"),
    *("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome"),
)
"""Looked for in this order: a browser that has windows furnishes one, unseen, for every page."""
POLL_S = 0.02
END_S = 5.0
"""Seconds that killed processes may take to vanish."""

FLAGS = (
    "--headless",
    "--remote-debugging-port=0",
    "--no-first-run",
    "--no-default-browser-check",
    "--no-service-autorun",
    "--disable-background-networking",
    "--disable-background-timer-throttling",
    "--disable-backgrounding-occluded-windows",
    "--disable-breakpad",
    "--disable-client-side-phishing-detection",
    "--disable-component-extensions-with-background-pages",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-dev-shm-usage",
    "--disable-domain-reliability",
    "--disable-extensions",
    "--disable-frame-rate-limit",
    "--disable-gpu",
    "--disable-gpu-vsync",
    "--disable-hang-monitor",
    "--disable-ipc-flooding-protection",
    "--disable-lcd-text",
    "--disable-partial-raster",
    "--disable-popup-blocking",
    "--disable-prompt-on-repost",
    "--disable-renderer-backgrounding",
    "--disable-search-engine-choice-screen",
    "--disable-smooth-scrolling",
    "--disable-sync",
    "--disable-features=AutofillServerCommunication,CertificateTransparencyComponentUpdater,"
    "DialMediaRouteProvider,HttpsUpgrades,InterestFeedContentSuggestions,MediaRouter,"
    "OptimizationHints,PaintHolding,Translate",
    "--font-render-hinting=none",
    "--force-color-profile=srgb",
    "--force-webrtc-ip-handling-policy=disable_non_proxied_udp",
    "--hide-scrollbars",
    "--log-level=3",
    "--metrics-recording-only",
    "--mute-audio",
    "--no-pings",
    "--password-store=basic",
    "--use-mock-keychain",
)
"""No talk of its own with anybody, no throttling of pages that lie behind others, frames as soon as
they are ready (events and screenshots wait for them), and the same pixels on every machine as far
as that goes."""

GUARDIAN = """
trap "" HUP INT TERM
read -r word || kill -s KILL -- "-$1" 2>/dev/null
n=0
while rm -rf -- "$2" 2>/dev/null; [ -e "$2" ] && [ $n -lt 40 ]; do sleep 0.05; n=$((n + 1)); done
"""

_running: set[Chromium] = set()


def find_chromium(path: Path | None = None) -> Path:
    """The browser's program: `path`, or what AGENTRL_CHROMIUM names, or the first on the PATH.

    Raises:
        ConfigError: it is not there.
    """
    named = os.environ.get(VARIABLE, "")
    for source, value in (("env.browser.chromium", path), (VARIABLE, named)):
        if value:
            found = shutil.which(value)
            if found is None:
                raise ConfigError(f"{source}: expected a program that can be run, got {value}")
            return Path(found)
    for name in NAMES:
        found = shutil.which(name)
        if found is not None:
            return Path(found)
    raise ConfigError(
        f"no Chromium on the PATH (looked for {', '.join(NAMES)}): install it (Debian: "
        "apt-get install chromium-headless-shell, or chromium), or name the program by "
        f"env.browser.chromium or {VARIABLE}"
    )


class Chromium:
    """A running browser, seen as processes and a folder."""

    def __init__(self, program: Path, flags: Sequence[str]) -> None:
        """Start it. Raises `EnvError` if the system refuses."""
        self.folder = Path(tempfile.mkdtemp(prefix=f"agentrl-browser-{os.getpid()}-"))
        self.profile = self.folder / "profile"
        root = ("--no-sandbox",) if os.geteuid() == 0 else ()
        arguments = [program, *FLAGS, *root, *flags, f"--user-data-dir={self.profile}"]
        self._log = self.folder / "stderr"
        try:
            with self._log.open("wb") as log:
                self.process = subprocess.Popen(
                    [*arguments, "about:blank"],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=log,
                    start_new_session=True,
                    env={**os.environ, "TMPDIR": str(self.folder)},
                )
            self._guardian = subprocess.Popen(
                ["/bin/sh", "-c", GUARDIAN, "guardian", str(self.process.pid), str(self.folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                cwd="/",
            )
        except OSError as error:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise EnvError(f"the browser {program} could not be started: {error}") from error
        _running.add(self)

    @property
    def is_running(self) -> bool:
        """Whether its first process lives."""
        return self.process.poll() is None

    async def endpoint(self, timeout_s: float) -> str:
        """Where it takes commands: a web socket of the loopback interface.

        Raises:
            EnvError: it ended instead.
            DeadlineError: it said nothing in time.
        """
        until = time.monotonic() + timeout_s
        file = self.profile / "DevToolsActivePort"
        while time.monotonic() < until:
            lines = file.read_text().split("\n") if file.exists() else []
            if len(lines) > 1:
                return f"ws://127.0.0.1:{lines[0]}{lines[1]}"
            if not self.is_running:
                raise EnvError(
                    f"the browser ended with {self.process.returncode} as it began; its last "
                    f"words: {self._last_words()}"
                )
            await asyncio.sleep(POLL_S)
        raise DeadlineError(
            f"the browser was not ready within {timeout_s:g} s; its last words: "
            f"{self._last_words()}"
        )

    def _last_words(self) -> str:
        with suppress(OSError):
            return self._log.read_text(errors="replace").strip()[-500:] or "none"
        return "none"

    async def close(self) -> None:
        """End every process and remove the folder; may be called twice."""
        self._kill()
        await asyncio.to_thread(self._wait)

    def end(self) -> None:
        """`close` for who has no event loop."""
        self._kill()
        self._wait()

    def _kill(self) -> None:
        with suppress(ProcessLookupError, PermissionError):
            if self in _running:
                os.killpg(self.process.pid, signal.SIGKILL)

    def _wait(self) -> None:
        if self not in _running:
            return
        _running.discard(self)
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(END_S)
            with suppress(BrokenPipeError, ValueError):
                self._guardian.communicate(b"done\n", timeout=END_S)


@atexit.register
def end_all() -> None:
    """End every browser that this process has left open."""
    for chromium in list(_running):
        chromium.end()
