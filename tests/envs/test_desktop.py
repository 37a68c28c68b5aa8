"""An address book on an X desktop: solved by mouse and keyboard, exact, and gone with its env."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from PIL import Image as Picture

from agentrl.core.errors import ConfigError, DeadlineError, MissingDataError
from agentrl.core.types import Observation, Spot, Step, Task
from agentrl.envs.desktop import display
from agentrl.envs.desktop.display import Desktop, DesktopError
from agentrl.envs.desktop.env import SCREEN, DesktopBook
from agentrl.envs.desktop.errands import BLANK, advise, facts, starts
from agentrl.evaluate.check_env import check_env
from agentrl.text import gui
from agentrl.text.gui import canonical
from support.browsers import alive_with

real = pytest.mark.desktop


def has_desktop() -> str:
    """Why there can be no desktop here; empty if there can."""
    try:
        display.python_with_tk()
    except MissingDataError as error:
        return str(error)
    return ""


@pytest.fixture(scope="module")
def env() -> Iterator[DesktopBook]:
    """One desktop for all tests that do it no harm."""
    if reason := has_desktop():
        pytest.skip(reason)
    book = DesktopBook(observe=("elements", "screenshot", "marks"))
    yield book
    book.close()


def text(shown: object) -> str:
    seen = shown.observation if isinstance(shown, Step) else shown
    assert isinstance(seen, Observation)
    return seen.text


def solved(env: DesktopBook, task: Task) -> Step:
    env.reset(task)
    while True:
        step = env.step(env.expert_action())
        assert not step.info["invalid_action"], text(step)
        if step.terminated or step.truncated:
            return step


def ref(env: DesktopBook, key: str) -> str:
    return env._keys[key]


# --- without a desktop ----------------------------------------------------------------------------


def test_what_is_missing_is_named_with_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    display.python_with_tk.cache_clear()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingDataError, match=r"Xvfb is not on the PATH \(Debian: apt-get"):
        DesktopBook().tasks("train")
    for name in ("Xvfb", "xdotool"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setattr(display, "PYTHONS", ("no-such-python",))
    with pytest.raises(MissingDataError, match=r"no Python with tkinter \(looked for no-such"):
        DesktopBook().tasks("train")
    display.python_with_tk.cache_clear()


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"must be at most env\.contacts=2, got 3"):
        DesktopBook(contacts=2, errands=3)
    with pytest.raises(ConfigError, match="at least one aspect"):
        DesktopBook(observe=())


def test_the_solver_fulfils_every_request_and_no_request_asks_for_nothing() -> None:
    for contacts, errands in ((2, 1), (4, 2), (9, 4)):
        found = starts(contacts, errands)
        for index in range(40):
            _, begun = found.find("train", index)
            wanted: Any = begun.data["wanted"]
            held: Any = json.loads(json.dumps(begun.data["contacts"]))
            assert facts(wanted) != facts(held)
            assert begun.instruction.count(".") == errands
            state = {"contacts": held, "selected": None, "draft": dict(BLANK)}
            moves = 0
            while (move := advise(state, wanted)) is not None:
                played(state, move.key, move.text)
                moves += 1
                assert moves <= 6 * errands
            assert facts(state["contacts"]) == facts(wanted)


def played(state: dict[str, Any], key: str, typed: str | None) -> None:
    """What the application does, in short."""
    held, at = state["contacts"], state["selected"]
    if key.startswith("row "):
        state["selected"] = int(key[4:])
        state["draft"] = dict(held[state["selected"]])
    elif key in ("name", "phone"):
        state["draft"][key] = typed
    elif key in ("home", "work"):
        state["draft"]["kind"] = key
    elif key == "star":
        state["draft"]["star"] = not state["draft"]["star"]
    elif key == "save" and at is not None:
        held[at] = dict(state["draft"])
    elif key == "save":
        held.append(dict(state["draft"]))
        state["selected"] = len(held) - 1
    else:
        held[at : at + 1] = [] if key == "delete" and at is not None else held[at : at + 1]
        state |= {"selected": None, "draft": dict(BLANK)}


# --- with one -------------------------------------------------------------------------------------


@real
def test_the_expert_solves_tasks_by_mouse_and_keyboard(env: DesktopBook) -> None:
    for task in env.tasks("dev")[:6]:
        last = solved(env, task)
        assert (last.reward, last.info["success"]) == (1.0, True), task.instruction


@real
def test_neither_doing_nothing_nor_too_much_is_a_success(env: DesktopBook) -> None:
    task = env.tasks("dev")[0]
    env.reset(task)
    last = env.step(canonical(gui.Done()))
    assert (last.reward, last.terminated, last.info["success"]) == (0.0, True, False)
    env.reset(task)
    step = env.step(canonical(gui.Click(gui.Label("Delete all"))))
    assert "row" not in text(step)
    while (action := env.expert_action()) != canonical(gui.Done()):
        env.step(action)  # what was lost is added again
    assert env.step(action).reward == 1.0
    env.reset(task)
    assert env.step(canonical(gui.Infeasible())).info["success"] is False
    with pytest.raises(RuntimeError, match="the episode is over"):
        env.step(action)


@real
def test_points_keys_and_the_wheel_do_what_they_say(env: DesktopBook) -> None:
    env.reset(env.tasks("dev")[0])
    element = env._elements[int(ref(env, "name")) - 1]
    step = env.step(canonical(gui.Click(SCREEN.centre(element.box))))
    assert "[6] entry Name (focused)" in text(step)
    step = env.step(canonical(gui.Type("Ab c'\"-9")))
    assert """[6] entry Name = "Ab c'"-9" (focused)""" in text(step)
    env.step(canonical(gui.Press("Control+a")))
    step = env.step(canonical(gui.Press("Backspace")))
    assert "[6] entry Name (focused)" in text(step)
    env.step(canonical(gui.Type("one\n", ref(env, "phone"))))
    step = env.step(canonical(gui.Type("two", ref(env, "phone"))))
    assert '[8] entry Phone = "two" (focused)' in text(step)
    step = env.step(canonical(gui.Type("", ref(env, "phone"))))
    assert "[8] entry Phone (focused)" in text(step)
    for act in (
        *(gui.Hover("1"), gui.DoubleClick("1"), gui.RightClick("1"), gui.Scroll("down", "1")),
        *(gui.Drag("1", "2"), gui.LongPress("1"), gui.Wait(), gui.Press("Tab")),
    ):
        assert env.step(canonical(act)).info["invalid_action"] is False, act


@real
@pytest.mark.parametrize(
    ("action", "reason"),
    [
        (canonical(gui.Click("99")), "there is no element 99"),
        (canonical(gui.Click(gui.Label("Sav"))), "nothing reads 'Sav'; did you mean 'Save'"),
        (canonical(gui.Swipe("up")), "swipe means nothing here"),
        ("click 1", "expected JSON"),
    ],
)
def test_what_cannot_be_done_costs_a_step(env: DesktopBook, action: str, reason: str) -> None:
    env.reset(env.tasks("dev")[0])
    step = env.step(action)
    assert step.info["invalid_action"] is True
    assert text(step).startswith(f"not possible: {reason}")


@real
def test_a_snapshot_is_exact_to_the_last_pixel(env: DesktopBook) -> None:
    env.reset(env.tasks("train")[3])
    for _ in range(2):
        env.step(env.expert_action())
    kept, key = env.snapshot(), env.state_key()
    env.restore(kept)
    before = env._observed()
    solved(env, env.tasks("train")[4])
    env.restore(kept)
    assert env.state_key() == key
    assert env._observed() == before
    fresh = DesktopBook(observe=env.observe)
    fresh.restore(kept)
    assert fresh._observed() == before
    fresh.close()


@real
def test_pictures_show_the_screen_and_where_actions_pointed(env: DesktopBook) -> None:
    first = env.reset(env.tasks("dev")[0])
    bare, boxes = (Picture.open(io.BytesIO(image.png)) for image in first.images)
    assert bare.size == boxes.size == tuple(SCREEN)
    assert len(set(bare.convert("RGB").get_flattened_data())) > 20
    step = env.step(canonical(gui.Click(ref(env, "save"))))
    [spot] = cast("list[Spot]", step.info["spots"])
    assert (spot.x, spot.y) == (670, 519)


@real
def test_an_episode_is_cut_at_its_limit(env: DesktopBook) -> None:
    short = DesktopBook(cap=2)
    short.reset(short.tasks("dev")[0])
    assert not short.step(canonical(gui.Wait())).truncated
    last = short.step(canonical(gui.Wait()))
    assert (last.truncated, last.reward, last.info["success"]) == (True, 0.0, False)
    short.close()


# --- failures -------------------------------------------------------------------------------------


def group_of(desktop: Desktop) -> int:
    return desktop.process.pid


@real
def test_an_application_that_dies_or_hangs_fails_its_episode_alone(env: DesktopBook) -> None:
    book = DesktopBook(patience_s=2.0)
    task = book.tasks("dev")[0]
    book.reset(task)
    assert book._desktop is not None
    first = group_of(book._desktop)
    os.kill(first, signal.SIGKILL)
    with pytest.raises(DesktopError, match="the application has gone"):
        book.step(canonical(gui.Wait()))
    assert solved(book, task).reward == 1.0
    second = group_of(book._desktop)
    os.kill(second, signal.SIGSTOP)
    with pytest.raises(DeadlineError, match="the answer did not come within 2 s"):
        book.reset(task)
    assert solved(book, task).reward == 1.0
    last = group_of(book._desktop)
    book.close()
    book.close()
    for group in (first, second, last):
        assert alive_with("no such words", group) == []
    assert list(Path("/tmp").glob(f"agentrl-desktop-{os.getpid()}-*")) == [env._open.folder]


ORPHAN = """
import sys, time
from agentrl.envs.desktop.env import DesktopBook
book = DesktopBook()
book.reset(book.tasks("dev")[0])
print(book._desktop.process.pid, book._desktop.folder, flush=True)
time.sleep(60)
"""


@real
def test_nothing_is_left_when_whoever_started_it_is_killed(env: DesktopBook) -> None:
    parent = subprocess.Popen([sys.executable, "-c", ORPHAN], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    group, folder = parent.stdout.readline().split()
    assert alive_with("no such words", int(group))
    parent.kill()
    parent.wait()
    parent.stdout.close()
    until = time.monotonic() + 10
    while time.monotonic() < until:
        if not alive_with("no such words", int(group)) and not Path(folder).exists():
            break
        time.sleep(0.05)
    assert alive_with("no such words", int(group)) == []
    assert not Path(folder).exists()


@real
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_checker_passes_it(env: DesktopBook) -> None:
    report = check_env(DesktopBook(contacts=2, errands=1, cap=5), tasks=2)
    assert [line for line in report.lines() if line.startswith("FAIL")] == []
    assert report.passed
