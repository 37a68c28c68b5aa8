"""The page of environments is what the code gives."""

import runpy
from pathlib import Path

from agentrl.core import registry

ROOT = Path(__file__).parents[2]


def test_the_page_of_environments_is_generated_from_the_code() -> None:
    page = runpy.run_path(str(ROOT / "scripts" / "envs_page.py"))["page"]
    assert (ROOT / "docs" / "envs.md").read_text() == page(), "make docs writes it anew"


def test_every_environment_has_its_section() -> None:
    text = (ROOT / "docs" / "envs.md").read_text()
    for name in registry.names("env"):
        assert f"\n## {name}\n" in text
