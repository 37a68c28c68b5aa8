"""What an interpreter pays and gets for importing agentrl."""

import importlib.util
import json
import os
import pkgutil
import re
import subprocess
import sys
import tomllib
from importlib.metadata import entry_points, version
from pathlib import Path

import pytest

import agentrl
from agentrl.core.registry import FOLDERS, find, names

ROOT = Path(__file__).parents[1]
PACKAGE = Path(agentrl.__file__).parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())

HEAVY = ("torch", "transformers", "pydantic", "minigrid", "numpy", "rich", "trl", "datasets")
ABSENT = (
    "trl", "datasets", "pyarrow", "vllm", "deepspeed", "playwright", "textworld", "scienceworld",
    "reasoning_gym", "websockets", "ray", "inspect_ai", "tensorboard", "wandb",
)  # fmt: skip
"""What the core path must do without. None in sys.modules looks like "not installed"."""

FOREIGN = {"agentrl.adapters.inspect_task"}
"""What another package imports, by its entry point, and nothing of ours does."""


def run_python(source: str) -> dict[str, object]:
    """What a fresh interpreter, started in the repository's root, leaves in `out`."""
    done = subprocess.run(
        [sys.executable, "-c", f"out = {{}}\n{source}\nimport json; print(json.dumps(out))"],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=55,
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


def modules() -> list[str]:
    """Every module of the package, the linked folders included."""
    walked = pkgutil.walk_packages([str(PACKAGE)], "agentrl.", onerror=lambda name: None)
    return sorted(info.name for info in walked if info.name != "agentrl.__main__")


def test_importing_agentrl_is_cheap_and_loads_nothing_heavy() -> None:
    out = run_python(
        "import sys, time; before = time.process_time(); import agentrl\n"
        "out['cpu_s'] = time.process_time() - before\n"
        f"out['heavy'] = [name for name in {HEAVY} if name in sys.modules]"
    )
    assert out["heavy"] == []
    assert isinstance(out["cpu_s"], float)
    assert out["cpu_s"] < 1.0


def test_environments_and_rewards_are_loaded_once_and_without_torch() -> None:
    out = run_python(
        "import sys; from agentrl.core.registry import names\n"
        "out['parts'] = names('env') + names('reward')\n"
        "out['twice'] = [m for m in sys.modules if m.split('.')[0] in ('envs', 'rewards')]\n"
        "out['torch'] = 'torch' in sys.modules"
    )
    assert {"babyai", "env"} <= set(map(str, out["parts"]))  # type: ignore[call-overload]
    assert out["twice"] == []
    assert out["torch"] is False


@pytest.mark.parametrize("slot", FOLDERS)
def test_every_slot_has_a_home_and_its_parts_say_what_they_are(slot: str) -> None:
    assert importlib.util.find_spec(FOLDERS[slot]) is not None
    for name in names(slot):
        assert find(slot, name).__doc__, f"{slot} {name} says nothing about itself"


def test_every_module_imports_without_trl_datasets_and_the_extras() -> None:
    wanted = [name for name in modules() if name not in FOREIGN]
    assert {"agentrl.core.types", "agentrl.envs", "agentrl.train"} <= set(wanted)
    out = run_python(
        f"import importlib, sys\nfor name in {ABSENT}: sys.modules[name] = None\n"
        f"for name in {wanted}:\n"
        "    try: importlib.import_module(name)\n"
        "    except ImportError as error: out[name] = str(error)"
    )
    assert out == {}


def test_the_package_is_typed_and_of_one_version() -> None:
    assert (PACKAGE / "py.typed").is_file()
    assert version("agentrl") == agentrl.__version__
    assert f"version: {agentrl.__version__}\n" in (ROOT / "CITATION.cff").read_text()


def test_the_command_is_installed_and_its_target_exists() -> None:
    commands = [point for point in entry_points(group="console_scripts") if point.name == "agentrl"]
    assert commands
    assert all(callable(point.load()) for point in commands)


def test_constraints_name_exact_versions_of_all_base_and_dev_dependencies() -> None:
    pins = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line]
    assert all(line.count("==") == 1 and "+" not in line for line in pins)
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in pins}
    assert not [name for name in pinned if name.startswith("nvidia") or name == "torchvision"]
    extras = PYPROJECT["project"]["optional-dependencies"]
    ours = [re.fullmatch(r"agentrl\[(.+)\]", wanted) for wanted in extras["dev"]]
    named = [extra for match in ours if match for extra in match[1].split(",")]
    also = [wanted for extra in named for wanted in extras[extra]]
    for wanted in PYPROJECT["project"]["dependencies"] + extras["dev"] + also:
        if wanted.startswith("agentrl["):
            continue
        name = wanted.split(">")[0].lower()
        assert name in pinned, f"{name} has no exact version in constraints.txt"
