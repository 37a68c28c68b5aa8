"""The environment of docs/add-an-env.md: short, whole, and it passes the checker."""

import importlib
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentrl import Env, cli
from agentrl.core import registry
from agentrl.core.protocols import abilities
from agentrl.core.types import Step
from agentrl.evaluate.check_env import CHECKS, Status, check_env

PAGE = Path(__file__).parents[2] / "docs" / "add-an-env.md"
MOST_LINES = 40


def source() -> str:
    """The first Python block of the page."""
    found = re.search(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    assert found is not None
    return found[1]


@pytest.fixture
def corridor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Env]]:
    """The class, imported from a file as a reader would have saved it."""
    (tmp_path / "corridor.py").write_text(source(), encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(registry._parts, "env", dict(registry._parts["env"]))
    yield importlib.import_module("corridor").Corridor
    sys.modules.pop("corridor")


def test_the_environment_has_at_most_40_lines() -> None:
    assert len(source().splitlines()) <= MOST_LINES


def test_it_passes_every_check_that_applies(corridor: type[Env]) -> None:
    report = check_env(corridor(), tasks=8)
    assert [(r.name, r.reason) for r in report.of(Status.FAIL)] == []
    assert {r.name for r in report.of(Status.SKIP)} == {
        "snapshot equals replay",
        "restore leaves the snapshot alone",
        "state keys tell states apart",
        "state keys hold in other processes",
        "legal actions are valid",
        "tools are json schemas",
        "goals hold or not",
    }
    assert abilities(corridor()) == {"expert_action"}
    assert len(report.results) == len(CHECKS)


def test_its_expert_reaches_every_goal_of_every_split(corridor: type[Env]) -> None:
    env = corridor()
    for split in ("train", "dev", "test"):
        for task in env.tasks(split):
            env.reset(task)
            step = env.step(env.expert_action())  # type: ignore[attr-defined]
            while isinstance(step, Step) and not (step.terminated or step.truncated):
                step = env.step(env.expert_action())  # type: ignore[attr-defined]
            assert isinstance(step, Step)
            assert step.info["success"] is True


def test_the_command_line_checks_it_by_name_and_settings(
    corridor: type[Env], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert corridor.__name__ == "Corridor"
    verdicts = tmp_path / "checks" / "corridor.json"
    assert cli.main(["check-env", "corridor", "length=20", "--json", str(verdicts)]) == 0
    shown = capsys.readouterr().out
    assert "corridor: 33 pass, 0 fail, 7 skip in" in shown.splitlines()[-1]
    assert "190 in train" in shown
    assert json.loads(verdicts.read_text())["counts"] == {"pass": 33, "fail": 0, "skip": 7}


@pytest.mark.parametrize("ability", ["expert_action", "snapshot", "state_key", "legal_actions"])
def test_the_page_explains_each_ability(ability: str) -> None:
    assert f"`{ability}(" in PAGE.read_text(encoding="utf-8")
