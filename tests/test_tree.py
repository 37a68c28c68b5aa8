"""Limits on the code's shape that no linter knows."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LIBRARY = sorted(
    path
    for folder in ("agentrl", "envs", "rewards")
    for path in (ROOT / folder).rglob("*.py")
    if not any(parent.is_symlink() for parent in path.parents)
)
NAMELESS = {"utils", "util", "common", "misc", "helpers", "helper"}


def lines(path: Path) -> int:
    return len(path.read_text().splitlines())


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_is_at_most_500_lines_and_says_what_it_is(path: Path) -> None:
    assert lines(path) <= 500
    assert path.stem not in NAMELESS


def test_the_library_stays_under_20000_lines() -> None:
    assert 1_000 < sum(map(lines, LIBRARY)) < 20_000


@pytest.mark.parametrize("name", ["envs", "rewards"])
def test_the_top_level_folders_are_linked_into_the_package(name: str) -> None:
    link = ROOT / "agentrl" / name
    assert link.is_symlink()
    assert link.readlink() == Path("..") / name
