"""The ladder's page is what the kept runs say, and its rules leave nothing open."""

import json
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from agentrl.core.config import load_config

ROOT = Path(__file__).parents[2]
RULES = yaml.safe_load((ROOT / "scripts" / "ladder.yaml").read_text())
SINGLE = RULES["single"]
SCRIPT = runpy.run_path(str(ROOT / "scripts" / "ladder.py"))


def test_the_page_is_generated_from_the_kept_runs() -> None:
    command = [sys.executable, "scripts/ladder.py", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


WANTED = [
    *((task, arm, rules) for task in RULES["tasks"] for arm, rules in RULES["arms"].items()),
    *((task, arm, rules) for task in SINGLE["tasks"] for arm, rules in SINGLE["arms"].items()),
]


@pytest.mark.parametrize(
    ("task", "arm", "rules"), WANTED, ids=[f"{task}-{arm}" for task, arm, _ in WANTED]
)
def test_every_arm_of_a_task_is_a_config_with_one_budget_and_100_test_tasks(
    task: str, arm: str, rules: dict[str, Any]
) -> None:
    path = ROOT / "scripts" / "ladder" / f"{task}.yaml"
    config = load_config(path, [*rules["keys"], *rules.get("tasks", {}).get(task, [])])
    assert config.run.env_steps == yaml.safe_load(path.read_text())["run"]["env_steps"]
    assert config.eval.final_tasks == 100
    assert config.eval.final_split == "test"


def test_a_single_explorer_is_an_arm_of_its_own_tasks_and_seeds_alone() -> None:
    due = SCRIPT["is_due"]
    assert not set(SINGLE["arms"]) & set(RULES["arms"])
    assert due("doorkey", "e3b", [], 1)
    assert due("doorkey", "e3b", [0], 0)
    assert not due("doorkey", "e3b", [], 5)
    assert not due("unlock", "e3b", [], 1)
    assert due("doorkey", "none", [], 5)
    assert not due("doorkey", "oracle", [], 1)


def test_what_another_script_says_last_is_the_run_and_its_last_complaint_the_error(
    tmp_path: Path,
) -> None:
    told = tmp_path / "told.py"
    told.write_text("print('noise'); print('{\"successes\": 7}')")
    assert SCRIPT["by_script"](Path(sys.executable), {"script": told}, "doorkey", 1) == {
        "successes": 7
    }
    told.write_text("raise ValueError('too short')")
    assert SCRIPT["by_script"](Path(sys.executable), {"script": told}, "doorkey", 1) == {
        "error": ["ValueError: too short"]
    }


def test_a_curve_holds_what_the_last_evaluation_said_and_0_before_the_first() -> None:
    run = {"curve": [[40, 0.5], [80, 1.0]]}
    assert SCRIPT["at_steps"](run, 100, 6) == [0.0, 0.0, 0.5, 0.5, 1.0, 1.0]
    assert SCRIPT["area"](run, 100) == pytest.approx(0.4)


def test_kept_runs_are_named_after_what_they_say_and_kept_their_budget() -> None:
    for path in sorted((ROOT / "docs" / "ladder").glob("*.json")):
        run = json.loads(path.read_text())
        assert path.stem == f"{run['task']}-{run['arm']}-{run['seed']}"
        assert run["seed"] in RULES["seeds"]
        if "error" not in run:
            recipe = yaml.safe_load((ROOT / "scripts/ladder" / f"{run['task']}.yaml").read_text())
            step = recipe["rollout"]["tasks_per_step"] * recipe["rollout"]["group_size"]
            most = recipe["run"]["env_steps"] + step * recipe["rollout"]["max_turns"]
            assert recipe["run"]["env_steps"] <= run["env_steps"] <= most
            assert run["episodes"] == 100


def test_the_area_is_the_mean_success_over_the_budget() -> None:
    area = SCRIPT["area"]
    assert area({"curve": [[50, 0.4], [100, 0.8]]}, 200) == pytest.approx(
        (50 * 0.4 + 100 * 0.8) / 200
    )
    assert area({"curve": [[0, 0.5]]}, 200) == 0.5
    assert area({"curve": [[150, 0.5], [250, 1.0]]}, 200) == pytest.approx(50 * 0.5 / 200)


def test_the_first_success_is_that_of_exploring_or_of_the_first_step_that_has_one() -> None:
    first = SCRIPT["first_success"]
    steps = [
        {"run/env_steps": 10.0, "rollout/success": 0.0},
        {"run/env_steps": 20.0, "rollout/success": 0.1},
    ]
    assert first({"first_success": 7}, steps) == 7
    assert first({"first_success": None}, steps) == first(None, steps) == 20
    assert first(None, steps[:1]) is None


def test_a_run_that_goes_on_from_another_is_counted_as_one() -> None:
    explored = {"tasks": 20, "solved": 5, "env_steps": 900}
    before: dict[str, Any] = {"env_steps": 1000, "first": None, "seconds": 5.0, "cpu_seconds": 4.0}
    before |= {"explored": explored, "curve": [[900, 0.1]], "successes": 10, "tokens": 0}
    after: dict[str, Any] = {"env_steps": 2000, "first": 70, "seconds": 7.0, "cpu_seconds": 6.0}
    after |= {"explored": explored, "curve": [[950, 0.3], [2000, 0.6]], "successes": 60}
    whole = SCRIPT["joined"](before, after | {"tokens": 50})
    assert whole["curve"] == [[900, 0.1], [1950, 0.3], [3000, 0.6]]
    assert whole["explored"] == {"tasks": 40, "solved": 10, "env_steps": 1800}
    assert (whole["env_steps"], whole["first"], whole["successes"]) == (3000, 1070, 60)
    assert (whole["seconds"], whole["cpu_seconds"], whole["tokens"]) == (12.0, 10.0, 50)
    assert SCRIPT["joined"](before | {"first": 3}, after | {"tokens": 0})["first"] == 3
