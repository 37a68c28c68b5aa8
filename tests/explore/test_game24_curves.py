"""The archive and its selectors search as classic searches do, to the operation."""

import json
import runpy
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
CUSTOMARY = ROOT.parent / "shared" / "data" / "game24.json"


@pytest.fixture(scope="module")
def curves() -> dict[str, Any]:
    """The script's own functions."""
    return runpy.run_path(str(ROOT / "scripts" / "game24_curves.py"))


def test_depth_first_by_our_selectors_takes_223_operations_on_the_known_puzzle(
    curves: dict[str, Any],
) -> None:
    assert curves["firsts"](curves["SEARCHES"]["dfs"][1], [[4, 4, 6, 8]], 1) == [223]


@pytest.mark.skipif(not CUSTOMARY.exists(), reason=f"{CUSTOMARY} is not there")
@pytest.mark.parametrize(("name", "count"), [("dfs", 100), ("bfs", 12)])
def test_searches_cost_what_is_kept(curves: dict[str, Any], name: str, count: int) -> None:
    puzzles = json.loads(CUSTOMARY.read_text())["puzzles"][900 : 900 + count]
    [known] = json.loads((ROOT / f"docs/results/search/game24-{name}.json").read_text())["runs"]
    assert curves["firsts"](curves["SEARCHES"][name][1], puzzles, 1) == known[:count]


def test_kept_curves_of_deterministic_searches_are_the_known_ones(curves: dict[str, Any]) -> None:
    for name, last in (("dfs", 550), ("bfs", 613)):
        told = json.loads((ROOT / f"docs/results/search/game24-{name}.json").read_text())
        shares = tuple(curves["solved"](told["runs"], most) for most in curves["WITHIN"])
        assert shares == curves["PUBLISHED"][name]
        assert max(told["runs"][0]) == last


def test_the_page_is_what_was_measured(
    curves: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write = curves["write_page"]
    monkeypatch.setitem(write.__globals__, "PAGE", tmp_path / "page.md")
    monkeypatch.setitem(write.__globals__, "PICTURE", tmp_path / "page.svg")
    write()
    for name, kept in (
        ("page.md", "exploration-game24.md"),
        ("page.svg", "exploration-game24.svg"),
    ):
        assert (tmp_path / name).read_text() == (ROOT / "docs" / kept).read_text()
