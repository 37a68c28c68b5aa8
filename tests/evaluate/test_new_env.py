"""A new environment works before its first edit, in a clone and in a project of one's own."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from agentrl import cli
from agentrl.core.errors import ConfigError
from agentrl.evaluate.new_env import new_env

ROOT = Path(__file__).parents[2]


def python(*words: str, at: Path, path: Path) -> str:
    """What a fresh interpreter prints, with `path` before everything else."""
    done = subprocess.run(
        [sys.executable, "-m", *words],
        cwd=at,
        env={**os.environ, "PYTHONPATH": f"{path}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def plugin(site: Path, name: str, module: str) -> None:
    """What installing a project leaves behind for its entry point."""
    info = site / "mine-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[agentrl.plugins]\n{name} = {module}\n")


def test_in_a_project_of_one_s_own_the_module_its_test_and_the_entry_point_work(
    tmp_path: Path,
) -> None:
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "mine"\n')
    written = new_env("deep_maze", tmp_path)
    assert [str(path) for path in written.files] == ["deep_maze.py", "test_deep_maze.py"]
    assert written.lines()[4:6] == [
        '  [project.entry-points."agentrl.plugins"]',
        '  deep_maze = "deep_maze"',
    ]
    assert "3 passed" in python("pytest", "-q", "test_deep_maze.py", at=tmp_path, path=tmp_path)
    plugin(tmp_path, "deep_maze", "deep_maze")
    shown = python("agentrl", "check-env", "deep_maze", "largest=50", at=tmp_path, path=tmp_path)
    assert "deep_maze: 38 pass, 0 fail, 2 skip in" in shown


@pytest.mark.slow
def test_in_a_clone_it_is_found_passes_its_test_the_checks_and_the_linters(tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    clone.mkdir()
    for name in ("agentrl", "envs", "rewards", "tests"):
        quiet = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, clone / name, symlinks=True, ignore=quiet)
    shutil.copy(ROOT / "pyproject.toml", clone)
    shown = python("agentrl", "new-env", "maze", at=clone / "tests", path=clone)
    assert shown.splitlines()[:2] == ["wrote ../envs/maze.py", "wrote envs/test_maze.py"]
    assert "entry-points" not in shown
    files = ("envs/maze.py", "tests/envs/test_maze.py")
    assert "3 passed" in python("pytest", "-q", files[1], at=clone, path=clone)
    assert "maze: 38 pass, 0 fail" in python("agentrl", "check-env", "maze", at=clone, path=clone)
    python("ruff", "check", "--no-cache", *files, at=clone, path=clone)
    python("ruff", "format", "--no-cache", "--check", *files, at=clone, path=clone)
    python("mypy", "agentrl/envs/maze.py", at=clone, path=clone)


@pytest.mark.parametrize("folder", ["src/my_project", "my_project"])
def test_a_package_gets_the_module_and_its_tests_folder_the_test(
    folder: str, tmp_path: Path
) -> None:
    package = tmp_path / folder
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (tmp_path / "tests").mkdir()
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "My-Project"\n')
    written = new_env("maze", package)
    assert (package / "maze.py").exists()
    assert "from my_project.maze import Maze" in (tmp_path / "tests/test_maze.py").read_text()
    assert '  maze = "my_project.maze"' in written.lines()


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    new_env("maze", tmp_path)
    (tmp_path / "maze.py").write_text("mine")
    with pytest.raises(ConfigError, match=r"maze\.py exists and is not overwritten"):
        new_env("maze", tmp_path)
    (tmp_path / "maze.py").unlink()
    with pytest.raises(ConfigError, match=r"test_maze\.py exists and is not overwritten"):
        new_env("maze", tmp_path)
    assert not (tmp_path / "maze.py").exists()


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("DeepMaze", "begins with a letter, got 'DeepMaze'; did you mean 'deep_maze'"),
        ("deep-maze", "did you mean 'deep_maze'"),
        ("../maze", "did you mean 'maze'"),
        ("", "got ''$"),
        ("lambda", "'lambda' is a keyword of Python: choose another name, such as lambda_env"),
        ("random", "'random' is a module of Python's own"),
        ("babyai", r"an env is called 'babyai' already \(agentrl.envs.babyai.env\)"),
    ],
)
def test_a_name_that_cannot_be_used_is_refused(name: str, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=complaint):
        new_env(name, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_command_writes_where_it_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["new-env", "maze"]) == 0
    assert capsys.readouterr().out.splitlines()[:2] == ["wrote maze.py", "wrote test_maze.py"]
    assert cli.main(["new-env", "maze"]) == 2
