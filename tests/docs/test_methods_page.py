"""docs/methods.md is what the code says, and every method has a test of its own."""

import runpy
from pathlib import Path

import pytest

from agentrl.core.registry import find, names

ROOT = Path(__file__).parents[2]
SCRIPT = runpy.run_path(str(ROOT / "scripts" / "methods_page.py"))


def test_the_page_is_what_the_code_says() -> None:
    written = (ROOT / "docs" / "methods.md").read_text()
    assert written == SCRIPT["page"](), "run scripts/methods_page.py"


@pytest.mark.parametrize(
    ("slot", "name"), [(slot, name) for slot in ("advantage", "loss") for name in names(slot)]
)
def test_every_method_has_a_test_and_names_its_source(slot: str, name: str) -> None:
    assert SCRIPT["tests_of"](find(slot, name)), f"no test imports {slot} {name}"
    assert SCRIPT["ARXIV"].search(find(slot, name).__doc__ or ""), f"{slot} {name}: no paper"
