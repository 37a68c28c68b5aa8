"""The page of environments is what the code gives."""

import subprocess
import sys
from pathlib import Path

from agentrl.core import registry

ROOT = Path(__file__).parents[2]


def test_the_page_of_environments_is_generated_from_the_code() -> None:
    command = [sys.executable, "scripts/envs_page.py", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_every_environment_has_its_section() -> None:
    text = (ROOT / "docs" / "envs.md").read_text()
    for name in registry.names("env"):
        assert f"\n## {name}\n" in text
