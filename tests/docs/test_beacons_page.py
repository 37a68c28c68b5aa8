"""The page of subgoals from a table is what the kept runs say; the table names what lies ahead."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from agentrl.core.config import load_config
from agentrl.envs.babyai import BabyAI

ROOT = Path(__file__).parents[2]
SCRIPT = runpy.run_path(str(ROOT / "scripts" / "beacons.py"))
TABLE = runpy.run_path(str(ROOT / "scripts" / "beacons_table.py"))


def test_the_page_is_generated_from_the_kept_runs() -> None:
    command = [sys.executable, "scripts/beacons.py", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("arm", SCRIPT["ARMS"])
def test_every_teacher_is_a_config_and_kept_runs_are_named_after_it(arm: str) -> None:
    load_config(ROOT / "scripts" / "beacons.yaml", [SCRIPT["bonus"](arm, 1)])
    for path in (ROOT / "docs/results/beacons").glob(f"{arm}-?.json"):
        run = json.loads(path.read_text())
        assert path.stem == f"{run['arm']}-{run['seed']}"
        assert run["seed"] in SCRIPT["SEEDS"]


def test_env_steps_are_counted_to_the_first_look_that_is_good_enough() -> None:
    until = SCRIPT["until"]
    entry = {"curve": [[10, 0.2], [20, 0.5], [30, 0.4], [40, 0.9]]}
    assert [until(entry, mark) for mark in (0.5, 0.6, 0.95)] == [20, 40, None]


@pytest.mark.parametrize(
    ("level", "names"),
    [
        ("MultiRoom-N2-S4", ["door", "goal"]),
        ("MultiRoom-N4-S5", ["door", "door", "door", "goal"]),
        ("DoorKey-6x6", ["key", "door", "goal"]),
    ],
)
def test_the_table_names_what_lies_on_the_way_in_order(level: str, names: list[str]) -> None:
    env = BabyAI(level=level, train_tasks=3)
    for task in env.tasks("train"):
        goals = TABLE["goals"](env, task)
        places, things = goals[: len(names)], goals[len(names) :]
        assert [goal.text.split()[3] for goal in places] == names
        assert [goal.kind for goal in things] == ["object"] * len(names)
        assert [env.check(goal.predicate) for goal in goals] == [False] * len(goals)
