"""The pages of environments are what code and kept figures give, and the episodes are real ones."""

import json
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agentrl.core import registry
from agentrl.core.config import load_alone
from agentrl.envs.elsewhere import Elsewhere

ROOT = Path(__file__).parents[2]
KEPT = sorted((ROOT / "docs" / "results" / "envs").glob("*.json"))
ALWAYS = ("babyai", "countdown", "game24", "gymnasium", "sudoku", "tools")
"""Environments that need no extra."""


def cases(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(path.read_text())["cases"]
    return found


def test_the_pages_are_generated_from_code_and_kept_figures() -> None:
    command = [sys.executable, "scripts/envs_page.py", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_page_that_is_not_what_the_code_gives_is_found(tmp_path: Path) -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "envs_page.py"))
    names = script["main"].__globals__
    names["INDEX"], names["PAGES"] = tmp_path / "envs.md", tmp_path / "envs"
    assert script["main"]("--check") == 1
    assert script["main"]() == 0
    assert script["main"]("--check") == 0
    (tmp_path / "envs" / "gone.md").touch()
    assert script["main"]("--check") == 1
    assert script["main"]() == 0
    assert not (tmp_path / "envs" / "gone.md").exists()


def test_every_environment_has_a_page_and_a_line_in_the_list() -> None:
    index = (ROOT / "docs" / "envs.md").read_text()
    for name in registry.names("env"):
        assert f"| [{name}](envs/{name}.md) |" in index
        text = (ROOT / "docs" / "envs" / f"{name}.md").read_text()
        assert text.startswith(f"# {name}\n")
        known = issubclass(registry.find("env", name), Elsewhere)
        for title in ("What to fetch",) if known else ("Actions", "Settings"):
            assert f"\n## {title}\n" in text


def test_what_was_measured_has_an_interval_and_enough_episodes() -> None:
    assert {path.stem for path in KEPT} >= {*ALWAYS, "bfcl", "reasoning_gym"}
    for path in KEPT:
        for case in cases(path):
            for seat in {"expert", "random"} & case.keys():
                found = case[seat]
                assert found["episodes"] >= min(20, max(case["tasks"].values())), path.stem
                assert found["low"] <= found["successes"] / found["episodes"] <= found["high"]


@pytest.mark.parametrize("name", ALWAYS)
def test_the_episode_of_a_page_is_what_the_environment_plays(name: str) -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "envs_measure.py"))
    for case in cases(ROOT / "docs" / "results" / "envs" / f"{name}.json"):
        env = load_alone(name, case["settings"].split()).env
        assert case["tasks"] == {split: len(env.tasks(split)) for split in env.splits}
        assert script["episode"](env, env.tasks(case["split"])[0]) == case["episode"]


def test_measuring_keeps_what_it_has_of_an_environment_that_cannot_be_played(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "envs_measure.py"))
    script["keep"].__globals__["KEPT"] = tmp_path
    monkeypatch.setenv("BFCL_EVAL", str(tmp_path / "nowhere"))
    (tmp_path / "bfcl.json").write_text("as it was")
    assert "keeps the figures that it has" in script["keep"]("bfcl", 3, 1.0)
    assert (tmp_path / "bfcl.json").read_text() == "as it was"
    assert script["keep"]("alfworld", 3, 1.0) == "alfworld: nothing to play"
    assert script["keep"]("game24", 3, 1.0) == "game24: 2 settings"
    assert cases(tmp_path / "game24.json")[0]["expert"]["successes"] == 3
