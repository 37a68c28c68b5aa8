"""The pages that the package `miniwob` ships: where they are, and which pictures they use."""

from __future__ import annotations

import importlib.util
import re
from functools import cache
from pathlib import Path

from agentrl.core.errors import MissingExtraError

SHEET = re.compile(r'href="([^":]+\.css)"')
PICTURE = re.compile(r"""(?:url\(|src=)["']?([^"')\s]+\.(?:png|jpe?g|gif|svg))""")


@cache
def pages() -> Path:
    """The folder of all that pages load, without links in its path, as what may be loaded is
    compared. Raises `MissingExtraError`."""
    found = importlib.util.find_spec("miniwob")
    if found is None or not found.submodule_search_locations:
        raise MissingExtraError("miniwob", "gui")
    return Path(found.submodule_search_locations[0]).resolve() / "html"


@cache
def task_names() -> tuple[str, ...]:
    """Every task there is."""
    return tuple(sorted(page.stem for page in (pages() / "miniwob").glob("*.html")))


def page_of(name: str) -> Path:
    """The page of a task."""
    return pages() / "miniwob" / f"{name}.html"


@cache
def pictures_of(name: str) -> tuple[str, ...]:
    """The addresses of the pictures that a task's page and its style sheets name."""
    page = page_of(name)
    files = [page, *(page.parent / sheet for sheet in SHEET.findall(page.read_text("utf-8")))]
    found = [
        (file.parent / picture).resolve()
        for file in files
        if file.is_file()
        for picture in PICTURE.findall(file.read_text("utf-8", errors="replace"))
    ]
    return tuple(dict.fromkeys(picture.as_uri() for picture in found if picture.is_file()))
