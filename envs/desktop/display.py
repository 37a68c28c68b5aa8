"""A desktop of its own: an X server without a screen, an application on it, a mouse and a keyboard.

Both processes are one group that a guardian ends with whoever started them, kill -9 included
(`browser/chromium.py`). Events are sent by xdotool, pictures are taken by Pillow. Every wait has a
deadline.
"""

from __future__ import annotations

import io
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from agentrl.core.errors import DeadlineError, EnvError, MissingDataError
from agentrl.core.types import Image
from agentrl.envs.browser.chromium import END_S, GUARDIAN
from agentrl.envs.browser.observe import Screen

APP = Path(__file__).with_name("window") / "app.py"
ADVICE = "Debian: apt-get install xvfb xdotool python3-tk"
PYTHONS = (sys.executable, "/usr/bin/python3", "python3")
"""Looked for in this order: the first that has tkinter runs the application."""
BEGIN = """
Xvfb -displayfd 4 -screen 0 "$1x$2x24" -nolisten tcp -noreset -dpi 96 \\
    4>"$3/display" </dev/null >/dev/null 2>"$3/xvfb" &
n=0
while ! [ -s "$3/display" ] && [ $n -lt 500 ]; do sleep 0.02; n=$((n + 1)); done
read -r display < "$3/display" || exit 3
DISPLAY=":$display" exec "$4" "$5" "$1" "$2" 2>"$3/app"
"""


class DesktopError(EnvError):
    """The X server, the application or xdotool failed."""


@cache
def python_with_tk() -> str:
    """A Python that has tkinter. Raises `MissingDataError`, also for the other programs."""
    for program in ("Xvfb", "xdotool"):
        if shutil.which(program) is None:
            raise MissingDataError(f"desktop: {program} is not on the PATH ({ADVICE})")
    for python in PYTHONS:
        found = shutil.which(python)
        if found is not None:
            asked = [found, "-c", "import tkinter"]
            done = subprocess.run(asked, capture_output=True, timeout=30, check=False)
            if done.returncode == 0:
                return found
    raise MissingDataError(
        f"desktop: no Python with tkinter (looked for {', '.join(PYTHONS)}; {ADVICE})"
    )


class Desktop:
    """An X server and the application on it."""

    def __init__(self, screen: Screen, patience_s: float) -> None:
        """Start them. Raises `MissingDataError`, `DesktopError` or `DeadlineError`."""
        python = python_with_tk()
        self.screen, self._patience_s = screen, patience_s
        self.folder = Path(tempfile.mkdtemp(prefix=f"agentrl-desktop-{os.getpid()}-"))
        size = [str(side) for side in screen]
        self.process = subprocess.Popen(
            ["/bin/sh", "-c", BEGIN, "desktop", *size, str(self.folder), python, str(APP)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        guarded = ["guardian", str(self.process.pid), str(self.folder)]
        self._guardian = subprocess.Popen(
            ["/bin/sh", "-c", GUARDIAN, *guarded],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
        )
        self._rest = b""
        try:
            self._line("the start")
        except BaseException:
            self.close()
            raise
        number = (self.folder / "display").read_text().strip()
        self.display = f":{number}"

    def ask(self, **said: object) -> dict[str, Any]:
        """What the application answers. Raises `DesktopError` or `DeadlineError`."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(said).encode() + b"\n")
            self.process.stdin.flush()
        except (OSError, ValueError) as error:
            raise self._gone() from error
        found: dict[str, Any] = json.loads(self._line("the answer"))
        return found

    def _line(self, what: str) -> bytes:
        stdout, due = self.process.stdout, time.monotonic() + self._patience_s
        assert stdout is not None
        while b"\n" not in self._rest:
            ready, _, _ = select.select([stdout], [], [], max(due - time.monotonic(), 0.0))
            if not ready:
                raise DeadlineError(f"desktop: {what} did not come within {self._patience_s:g} s")
            more = os.read(stdout.fileno(), 65_536)
            if not more:
                raise self._gone()
            self._rest += more
        line, _, self._rest = self._rest.partition(b"\n")
        return line

    def _gone(self) -> DesktopError:
        said = ""
        for name in ("app", "xvfb"):
            with suppress(OSError):
                said = said or (self.folder / name).read_text(errors="replace").strip()[-300:]
        return DesktopError(f"desktop: the application has gone; last words: {said or 'none'}")

    def tool(self, *words: str) -> None:
        """Send events by xdotool. Raises `DesktopError` or `DeadlineError`."""
        try:
            done = subprocess.run(
                ["xdotool", *words],
                env={**os.environ, "DISPLAY": self.display},
                capture_output=True,
                text=True,
                timeout=self._patience_s,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise DeadlineError(f"desktop: xdotool {words[0]} hung") from error
        if done.returncode:
            raise DesktopError(f"desktop: xdotool {' '.join(words)[:80]}: {done.stderr.strip()}")

    def picture(self) -> Image:
        """The screen as a PNG. Raises `DesktopError`."""
        from PIL import ImageGrab

        try:
            taken = ImageGrab.grab(xdisplay=self.display)
        except OSError as error:
            raise DesktopError(f"desktop: no picture of the screen: {error}") from error
        out = io.BytesIO()
        taken.save(out, "PNG")
        return Image(out.getvalue())

    def close(self) -> None:
        """End every process and remove the folder; may be called twice."""
        if self.process.stdin is None or self.process.stdin.closed:
            return
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(END_S)
            self._guardian.communicate(b"done\n", timeout=END_S)
        for pipe in (self.process.stdin, self.process.stdout):
            with suppress(OSError):
                if pipe is not None:
                    pipe.close()


KEYS: Mapping[str, str] = {
    "Enter": "Return",
    "Backspace": "BackSpace",
    "Space": "space",
    "PageUp": "Prior",
    "PageDown": "Next",
    "ArrowUp": "Up",
    "ArrowDown": "Down",
    "ArrowLeft": "Left",
    "ArrowRight": "Right",
    "Control": "ctrl",
    "Shift": "shift",
    "Alt": "alt",
    "Meta": "super",
}
"""Names of keys that X has other ones for."""


def chord(keys: str) -> str:
    """A key or a chord in xdotool's words."""
    return "+".join(KEYS.get(key, key) for key in keys.split("+"))


def typed(text: str) -> list[Sequence[str]]:
    """The calls of xdotool that type a text; a new line is Enter."""
    calls: list[Sequence[str]] = []
    for at, line in enumerate(text.split("\n")):
        if at:
            calls.append(("key", "Return"))
        if line:
            calls.append(("type", "--delay", "1", "--", line))
    return calls
