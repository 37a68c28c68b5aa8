"""Browsers that tests of a file share."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from support.browsers import Played, kept_browser, player


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.Runner]:
    """An event loop with an open browser."""
    with kept_browser() as runner:
        yield runner


@pytest.fixture(scope="module")
def played(loop: asyncio.Runner) -> Played:
    """Plays with an env in that browser, and closes the env."""
    return player(loop)
