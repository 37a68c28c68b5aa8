"""Limits on the code's shape that no linter knows."""

import ast
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


def lines_of_code(path: Path) -> int:
    """Lines that are not blank, no comment and no docstring."""
    text = path.read_text()
    told = {
        number
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        for number in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    written = enumerate((line.strip() for line in text.splitlines()), start=1)
    return sum(bool(line) and line[0] != "#" and n not in told for n, line in written)


def test_lines_of_code_leave_out_what_is_only_told(tmp_path: Path) -> None:
    path = tmp_path / "a.py"
    path.write_text('"""Two\nlines."""\n\n# why\nx = 1\n"""What x is."""\ny = """a\nb"""\n')
    assert lines_of_code(path) == 3


LEAVES = {
    "envs": 1_000,
    "agentrl/adapters": 1_000,
    "agentrl/engines/vllm": 450,
    "rewards": 250,
    "agentrl/algo/advantages": 250,
    "agentrl/algo/losses": 250,
    "agentrl/algo/mismatch": 250,
    "agentrl/algo/filters": 250,
    "agentrl/algo/curricula": 250,
    "agentrl/explore/bonuses": 250,
    "agentrl/explore/proposers": 250,
    "agentrl/explore/selectors": 250,
    "agentrl/explore/starts": 250,
    "agentrl/rollout/strategies": 250,
    "agentrl/text/actions": 250,
}
"""Folders of parts that a config names and nothing imports: the most code of one file or folder."""


def test_the_library_stays_under_20000_lines_and_so_does_each_part_under_its_own() -> None:
    sizes: dict[str, int] = {}
    for path in LIBRARY:
        place = path.relative_to(ROOT)
        leaf = next((leaf for leaf in LEAVES if place.is_relative_to(leaf)), None)
        part = f"{leaf}/{place.relative_to(leaf).parts[0]}" if leaf else "the library"
        sizes[part] = sizes.get(part, 0) + lines_of_code(path)
    assert 1_000 < sizes.pop("the library") < 20_000
    limits = {part: LEAVES[part.rpartition("/")[0]] for part in sizes}
    assert {part: size for part, size in sizes.items() if size >= limits[part]} == {}


@pytest.mark.parametrize("name", ["envs", "rewards"])
def test_the_top_level_folders_are_linked_into_the_package(name: str) -> None:
    link = ROOT / "agentrl" / name
    assert link.is_symlink()
    assert link.readlink() == Path("..") / name
