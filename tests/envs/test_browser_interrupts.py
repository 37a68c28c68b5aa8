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


def processes(run: subprocess.Popen[str], mark: str) -> Iterator[tuple[int, int, str]]:
    """Number, group and command line of each process that is marked or uses a browser's folder of
    the run, and of all in the process groups of these."""
    found, led = list[tuple[int, int, str]](), set[int]()
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            line, group = (folder / "cmdline").read_bytes(), os.getpgid(int(folder.name))
            of = f"agentrl-browser-{run.pid}-".encode()
            if of in line or mark.encode() in (folder / "environ").read_bytes():
                led.add(group)
            found.append((int(folder.name), group, line.replace(b"\0", b" ").decode()))
    return (one for one in found if one[1] in led)


def left(run: subprocess.Popen[str], mark: str, groups: set[int]) -> list[object]:
    """Processes (also those of `groups`) and folders that are there within two seconds of its
    end."""
    until = time.monotonic() + 2
    while True:
        folders = Path(tempfile.gettempdir()).glob(f"agentrl-browser-{run.pid}-*")
        still = [group for group in groups if is_alive(group)]
        found = [*processes(run, mark), *folders, *still]
        if not found or time.monotonic() > until:
            return found
        time.sleep(0.05)


def is_alive(group: int) -> bool:
    """Whether a process group has a process."""
    with suppress(ProcessLookupError):
        os.killpg(group, 0)
        return True
    return False


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


def signalled(run: subprocess.Popen[str], mark: str, number: int) -> tuple[list[str], set[int]]:
    """The last words of a run that plays in a browser and gets a signal, and its process groups."""
    until, groups = time.monotonic() + 120, set[int]()
    while run.poll() is None and not groups and time.monotonic() < until:
        there = list(processes(run, mark))
        if any("type=renderer" in line for _, _, line in there):
            groups = {group for _, group, _ in there}
        time.sleep(0.05)
    time.sleep(1.0)
    assert run.poll() is None, run.communicate()
    assert len(groups) > 1, "no browser was seen"
    os.killpg(run.pid, number)
    _, words = run.communicate(timeout=60)
    return words.strip().splitlines(), groups


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
    words, groups = signalled(run, mark, number)
    assert len(words) == 1, words
    assert words[0].startswith(f"{word}: the run so far is in {tmp_path}/cut")
    assert run.returncode == status
    assert left(run, mark, groups) == []


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
    words, groups = signalled(run, mark, number)
    assert words == [word]
    assert run.returncode == status
    assert left(run, mark, groups) == []
