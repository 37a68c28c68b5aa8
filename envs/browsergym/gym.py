"""BrowserGym itself: found, told which browser to take, made and ended.

Playwright's synchronous interface belongs to one thread of a process, and BrowserGym keeps one of
them for all of its envs; hence a process for each env. The interface was read in, and tried with,
browsergym-core 0.14.3.
"""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from agentrl.core.errors import ConfigError, MissingDataError, MissingExtraError, did_you_mean
from agentrl.envs.browser.chromium import find_chromium
from agentrl.envs.miniwob.pages import pages

PREFIX = "browsergym/"
SUBSETS = ["chat", "infeas", "bid", "coord", "nav"]
"""Of BrowserGym's actions: those that our actions can become."""
MINIWOB_URL = "MINIWOB_URL"


class Chat:
    """BrowserGym's chat without the page that shows it, for which it starts another browser."""

    def __init__(self, headless: bool = True, **settings: object) -> None:
        self.messages: list[dict[str, object]] = []

    def add_message(self, role: str, msg: str) -> None:
        """Keep what was said, as BrowserGym does."""
        if role != "info":
            self.messages.append({"role": role, "timestamp": 0.0, "message": msg})

    def wait_for_user_message(self) -> None:
        """Nobody is there."""

    def close(self) -> None:
        """Nothing is open."""


def full_id(name: str) -> str:
    """`miniwob.click-test` and `browsergym/miniwob.click-test` are the same."""
    return name if name.startswith(PREFIX) else PREFIX + name


def known(ident: str) -> None:
    """Import the benchmark of an id, and see that the id is there.

    Raises:
        MissingExtraError: BrowserGym is not installed.
        MissingDataError: the benchmark's package is not.
        ConfigError: there is no such id.
    """
    try:
        importlib.import_module("browsergym.core")
        import gymnasium
    except ImportError as error:
        raise MissingExtraError("browsergym", "browsergym") from error
    name = ident.removeprefix(PREFIX).partition(".")[0]
    if name == "miniwob" and MINIWOB_URL not in os.environ:
        os.environ[MINIWOB_URL] = f"{(pages() / 'miniwob').as_uri()}/"
    if name != "openended":
        try:
            importlib.import_module(f"browsergym.{name}")
        except ImportError as error:
            raise MissingDataError(
                f"env.id: the benchmark of {ident} cannot be imported ({error}): "
                f"pip install browsergym-{name}, and what its page asks for"
            ) from error
    every = [one for one in gymnasium.registry if one.startswith(PREFIX)]
    if ident not in every:
        raise ConfigError(
            f"env.id: BrowserGym has no {ident!r}{did_you_mean(ident, every)} ({len(every)} known)"
        )


def _is_news(record: logging.LogRecord) -> bool:
    """BrowserGym warns in each episode of a setting that was asked for."""
    return not str(record.msg).startswith("Overriding the task's")


class Session:
    """One gymnasium env of BrowserGym, and the Playwright that it takes."""

    def __init__(self, ident: str, settings: Mapping[str, Any], *, has_chat: bool) -> None:
        import browsergym.core.chat
        import browsergym.core.env
        import gymnasium
        from browsergym.core.action.highlevel import HighLevelActionSet

        self.ident = ident
        logging.getLogger("browsergym.core.env").addFilter(_is_news)
        browsergym.core.env.Chat = browsergym.core.chat.Chat if has_chat else Chat
        actions = HighLevelActionSet(subsets=SUBSETS, multiaction=False)
        made = gymnasium.make(
            ident, action_mapping=actions.to_python_code, disable_env_checker=True, **settings
        )
        self._gym: Any = made.unwrapped

    def reset(self, seed: int) -> Mapping[str, Any]:
        """BrowserGym's observation."""
        shown, _ = self._gym.reset(seed=seed)
        return dict(shown)

    def step(self, call: str) -> tuple[Mapping[str, Any], float, bool, bool]:
        """BrowserGym's observation, reward, and whether it is over or cut."""
        shown, reward, is_over, is_cut, _ = self._gym.step(call)
        return dict(shown), float(reward), bool(is_over), bool(is_cut)

    def close(self) -> None:
        """End the browser; may be called twice."""
        from playwright.sync_api import Error

        with suppress(Error):
            self._gym.close()


def take_browser(program: Path | None) -> None:
    """Let Playwright start the named browser, or if it has none of its own the system's.

    BrowserGym's chat starts one without asking which, hence the wrapper.
    """
    import browsergym.core
    from playwright.sync_api import BrowserType

    own = Path(browsergym.core._get_global_playwright().chromium.executable_path)
    if program is None and (own.exists() or hasattr(BrowserType.launch, "program")):
        return
    found = find_chromium(program)
    launch = getattr(BrowserType.launch, "without", BrowserType.launch)

    def with_program(self: Any, **settings: Any) -> Any:
        arguments = [*(settings.pop("args", None) or []), "--disable-dev-shm-usage"]
        return launch(self, executable_path=str(found), args=arguments, **settings)

    with_program.program, with_program.without = found, launch  # type: ignore[attr-defined]
    BrowserType.launch = with_program


def end_playwright() -> None:
    """End the process that speaks to browsers, and with it every browser of this process."""
    import browsergym.core
    from playwright.sync_api import Error

    kept, browsergym.core._PLAYWRIGHT = browsergym.core._PLAYWRIGHT, None
    if kept is not None:
        with suppress(Error):
            kept.stop()
