"""A browser under Ctrl-C and SIGTERM: one line is said, and no process is left.

The signal goes to the whole process group, as a terminal's Ctrl-C and most schedulers send it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]
RECIPE = """\
run: {name: cut, steps: 10000}
model: {model_type: llama, hidden_size: 32, num_hidden_layers: 1, num_attention_heads: 2}
tokenizer: {vocabulary: 300, texts: 10}
env: {name: miniwob, task: click-test-2}
sampling: {max_tokens: 4}
rollout: {tasks_per_step: 2, group_size: 2, max_turns: 2, in_flight: 4}
eval: {every: 1, tasks: 2, final_tasks: 2, baselines: false}
"""


def processes(run: subprocess.Popen[str], mark: str) -> Iterator[str]:
    """Command lines of the processes that are marked, or use a browser's folder of the run."""
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            line = (folder / "cmdline").read_bytes()
            of = f"agentrl-browser-{run.pid}-".encode()
            if of in line or mark.encode() in (folder / "environ").read_bytes():
                yield line.replace(b"\0", b" ").decode()


def left(run: subprocess.Popen[str], mark: str) -> list[object]:
    """Processes and folders that are there within two seconds of its end."""
    until = time.monotonic() + 2
    while True:
        folders = Path(tempfile.gettempdir()).glob(f"agentrl-browser-{run.pid}-*")
        found = [*processes(run, mark), *folders]
        if not found or time.monotonic() > until:
            return found
        time.sleep(0.05)


def begun(mark: str, *arguments: str) -> subprocess.Popen[str]:
    """`agentrl`, leader of a group, everything that it starts marked."""
    return subprocess.Popen(
        [sys.executable, "-m", "agentrl", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "AGENTRL_MARK": mark},
        start_new_session=True,
    )


def is_playing(run: subprocess.Popen[str], mark: str) -> bool:
    return any("type=renderer" in line for line in processes(run, mark))


def signalled(run: subprocess.Popen[str], mark: str, number: int) -> list[str]:
    """The last words of a run that plays in a browser and gets a signal."""
    until = time.monotonic() + 120
    while run.poll() is None and not is_playing(run, mark) and time.monotonic() < until:
        time.sleep(0.05)
    time.sleep(1.0)
    assert run.poll() is None, run.communicate()
    os.killpg(run.pid, number)
    _, words = run.communicate(timeout=60)
    return words.strip().splitlines()


@pytest.mark.parametrize(
    ("number", "status", "word"),
    [
        (signal.SIGTERM, 143, "terminated"),
        pytest.param(signal.SIGINT, 130, "interrupted", marks=pytest.mark.slow),
    ],
    ids=["SIGTERM", "Ctrl-C"],
)
def test_training_in_a_browser_ends_with_one_line_and_no_process(
    number: int, status: int, word: str, tmp_path: Path
) -> None:
    recipe, mark = tmp_path / "recipe.yaml", str(tmp_path)
    recipe.write_text(RECIPE)
    run = begun(mark, "train", str(recipe), f"run.folder={tmp_path}")
    words = signalled(run, mark, number)
    assert len(words) == 1, words
    assert words[0].startswith(f"{word}: the run so far is in {tmp_path}/cut")
    assert run.returncode == status
    assert left(run, mark) == []


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one step."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "recipe.yaml").write_text(RECIPE)
    keys = (f"run.folder={folder}", "run.steps=1")
    run = begun(str(folder), "train", str(folder / "recipe.yaml"), *keys)
    _, words = run.communicate(timeout=240)
    assert run.returncode == 0, words
    return folder / "cut"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "status", "word"),
    [(signal.SIGTERM, 143, "terminated"), (signal.SIGINT, 130, "interrupted")],
    ids=["SIGTERM", "Ctrl-C"],
)
def test_evaluation_in_a_browser_ends_with_one_line_and_no_process(
    number: int, status: int, word: str, trained: Path, tmp_path: Path
) -> None:
    mark = str(tmp_path)
    run = begun(mark, "eval", str(trained), "--tasks", "400")
    assert signalled(run, mark, number) == [word]
    assert run.returncode == status
    assert left(run, mark) == []
