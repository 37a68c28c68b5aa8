"""The environment of docs/add-an-env.md: short, whole, and it passes the checker."""

import importlib
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
        "state keys hold in other processes",
        "legal actions are valid",
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
    corridor: type[Env], capsys: pytest.CaptureFixture[str]
) -> None:
    assert corridor.__name__ == "Corridor"
    assert cli.main(["check-env", "corridor"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "corridor: 12 pass, 0 fail, 3 skip"
    assert cli.main(["check-env", "corridor", "length=20"]) == 0
    assert "190 in train" in capsys.readouterr().out


@pytest.mark.parametrize("ability", ["expert_action", "snapshot", "state_key", "legal_actions"])
def test_the_page_explains_each_ability(ability: str) -> None:
    assert f"`{ability}(" in PAGE.read_text(encoding="utf-8")
