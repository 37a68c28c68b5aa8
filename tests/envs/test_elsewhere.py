"""Benchmarks of which there is the name alone: they say what to fetch, and nothing is pretended."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentrl.cli import main
from agentrl.core.config import load_alone, load_config
from agentrl.core.errors import MissingDataError
from agentrl.core.registry import find, names
from agentrl.core.types import Task
from agentrl.envs.elsewhere import Elsewhere
from support.models import save_model

NAMES = [name for name in names("env") if issubclass(find("env", name), Elsewhere)]


def test_four_benchmarks_are_known_by_name() -> None:
    assert NAMES == ["alfworld", "appworld", "tau2", "webshop"]


@pytest.mark.parametrize("name", NAMES)
def test_whatever_is_asked_of_one_says_what_to_fetch_and_where(name: str) -> None:
    env = load_alone(name).env
    task = Task(id="t", seed=0)
    for ask in (lambda: env.tasks("test"), lambda: env.reset(task), lambda: env.step("look")):
        with pytest.raises(MissingDataError) as told:
            ask()
        words = str(told.value)
        assert words.startswith(f"env {name}: its data is no part of agentrl")
        assert all(step in words for step in env.needs.steps)  # type: ignore[attr-defined]
        assert env.needs.folder in words  # type: ignore[attr-defined]
        assert "not found" in words


def test_what_is_there_already_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALFWORLD_DATA", str(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "alfworld.py").touch()
    with pytest.raises(MissingDataError, match=rf"alfworld found, folder {tmp_path} found"):
        load_alone("alfworld").env.tasks("train")


@pytest.mark.parametrize("command", [["play", "alfworld"], ["check-env", "tau2"]])
def test_commands_fail_with_the_words_and_no_trace(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command) != 0
    both = capsys.readouterr()
    assert "its data is no part of agentrl" in both.out + both.err
    assert "Traceback" not in both.out + both.err


def test_a_run_fails_before_anything_is_loaded_or_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "run.yaml"
    config.write_text(f"env: webshop\nrun: {{folder: {tmp_path}/runs}}\nmodel: nowhere/at-all\n")
    assert load_config(config).env == load_alone("webshop").env
    assert main(["train", str(config)]) == 2
    assert "git clone https://github.com/princeton-nlp/webshop.git" in capsys.readouterr().err
    assert not (tmp_path / "runs" / "run").exists()


def test_the_list_shows_that_data_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "env"]) == 0
    said = capsys.readouterr().out.splitlines()
    for name in NAMES:
        [line] = [line for line in said if line.startswith(f"  {name}: ")]
        assert "Needs data" in line


def test_a_suite_tells_of_one_in_its_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    suite = tmp_path / "mine.yaml"
    suite.write_text(
        "entries:\n  - {name: house, env: alfworld, tasks: 2}\n"
        "  - {name: lake, env: gymnasium, tasks: 2, max_turns: 2, max_tokens: 2}\n"
    )
    save_model(tmp_path / "model", "qwen3")
    command = ["eval", str(tmp_path / "model"), "--suite", str(suite), "renderer=plain"]
    assert main(command) == 0
    assert "| house | not played | env alfworld: its data" in capsys.readouterr().out
