"""AndroidWorld's tasks are played against a faithful fake of its interface.

The fake (`support/android_world_inside`) has the names and signatures of
google-research/android_world at d9c569f764b3a5629321858de03ff653d0f24056; no emulator was at hand.
"""

from __future__ import annotations

import importlib
import io
import json
import random
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from PIL import Image as Picture

from agentrl.core.errors import ConfigError, DeadlineError, MissingDataError
from agentrl.core.types import Observation, Step, Stop, Task
from agentrl.envs.androidworld.device import REVISION, DeviceError
from agentrl.envs.androidworld.env import AndroidWorld
from agentrl.evaluate.check_env import check_env
from agentrl.text import gui
from agentrl.text.actions.android_world import AndroidWorldJson
from agentrl.text.gui import canonical
from support.play import play_one, says

INSIDE = Path(__file__).parents[1] / "support" / "android_world_inside"


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The package, as it is when it has just been installed and the emulator started."""
    monkeypatch.syspath_prepend(str(INSIDE))
    module = importlib.import_module("android_world")
    yield module
    module.HANG.set()
    for name in [name for name in sys.modules if name.partition(".")[0] == "android_world"]:
        del sys.modules[name]


def tasks(env: AndroidWorld) -> Sequence[Task]:
    return env.tasks("test")


def begun(name: str, **settings: Any) -> tuple[AndroidWorld, Observation]:
    env = AndroidWorld(**{"task": name, "pause_s": 0.0, **settings})
    return env, env.reset(tasks(env)[0])


def text(step: Step) -> str:
    assert isinstance(step.observation, Observation)
    return step.observation.text


def said(env: AndroidWorld, *actions: gui.GuiAction) -> Step:
    for action in actions[:-1]:
        step = env.step(canonical(action))
        assert not step.info["invalid_action"], text(step)
    return env.step(canonical(actions[-1]))


# --- what there is to play ------------------------------------------------------------------------


def test_without_the_package_the_error_says_how_to_install_it() -> None:
    assert "android_world" not in sys.modules
    with pytest.raises(MissingDataError, match=r"pip install -r requirements.txt; python setup.py"):
        AndroidWorld().tasks("test")


def test_the_test_split_has_the_seeds_of_android_worlds_own_runs(fake: Any) -> None:
    env = AndroidWorld(test_instances=2)
    found = tasks(env)
    assert len(found) == 2 * len(fake.ORDINARY + fake.FAULTY)
    # int(sha256(b"30_ContactsAddContact_0").hexdigest(), 16) % 2**32, as suite_utils.py has it
    first = next(t for t in found if t.id == "androidworld/ContactsAddContact/test/0000")
    assert first.seed == 1155463587
    every = {split: {t.seed for t in env.tasks(split)} for split in env.splits}
    assert not every["train"] & every["test"]
    assert not every["train"] & every["dev"]


def test_a_task_that_is_not_there_is_named_with_the_nearest(fake: Any) -> None:
    with pytest.raises(ConfigError, match=r"'ContactAddContact'; did you mean 'ContactsAddContact"):
        tasks(AndroidWorld(task="ContactAddContact"))
    with pytest.raises(ConfigError, match=r"env\.grpc_ports: expected one for each"):
        AndroidWorld(console_ports=(5554, 5556))


# --- an episode -----------------------------------------------------------------------------------


def test_a_switch_is_found_and_turned_and_the_score_is_the_reward(fake: Any) -> None:
    env, first = begun("SystemWifiTurnOff")
    assert first.text == "goal Turn wifi off.\n[0] TextView Settings\n[1] TextView Contacts"
    step = said(env, gui.Click("0"))
    assert text(step) == "[0] ScrollView (scrollable)\n[1] Switch Wi-Fi (checked)"
    step = said(env, gui.Click(gui.Label("Wi-Fi")))
    assert text(step).endswith("[1] Switch Wi-Fi (unchecked)")
    last = said(env, gui.Done())
    assert (last.reward, last.terminated, last.info["success"]) == (1.0, True, True)
    assert last.info["metrics"] == {"steps": 3.0}
    with pytest.raises(RuntimeError, match="the episode is over"):
        said(env, gui.Done())
    env.close()
    assert [call for call in fake.CALLS if not call.startswith("act")] == [
        "load 5554 8554",
        "initialize SystemWifiTurnOff",
        "reset go_home=True",
        "tear_down SystemWifiTurnOff",
        "close",
    ]


def test_the_same_seed_asks_for_the_same_and_leaves_global_randomness_alone(fake: Any) -> None:
    random.seed(5)
    before = random.getstate()
    env = AndroidWorld(task="ContactsAddContact", pause_s=0.0, test_instances=4)
    goals = [env.reset(task).text.split("\n")[0] for task in (*tasks(env), *tasks(env))]
    assert goals[:4] == goals[4:]
    assert len(set(goals)) == 4
    assert random.getstate() == before
    env.close()


def test_a_part_of_the_score_is_rewarded_and_is_no_success(fake: Any) -> None:
    env, first = begun("ContactsAddContact")
    name = first.text.split(" for ")[1].split(".")[0]
    step = said(env, gui.Goto("app:contacts"), gui.Type("x", "0"), gui.Type(name, "0"))
    assert f'[0] EditText name = "{name}" (focused)' in text(step)
    last = said(env, gui.Click("2"), gui.Infeasible("no number"))
    assert (last.reward, last.info["success"]) == (0.5, False)
    env.close()
    env, _ = begun("ContactsAddContact", success_at=0.5)
    said(env, gui.Goto("app:contacts"), gui.Type(name, "0"), gui.Click("2"))
    assert said(env, gui.Done()).info["success"] is True
    env.close()


def test_an_answer_reaches_the_judge_and_ends_the_episode(fake: Any) -> None:
    env, first = begun("NotesQuestion")
    one = int(first.text.split()[3])
    last = said(env, gui.Answer(str(one + 1)))
    assert (last.reward, last.terminated) == (1.0, True)
    env.close()


def test_after_ten_steps_for_each_unit_of_complexity_it_is_cut_and_worth_nothing(fake: Any) -> None:
    env, _ = begun("ContactsAddContact")
    steps = [said(env, gui.Wait()) for _ in range(12)]
    assert [step.truncated for step in steps] == [False] * 11 + [True]
    assert (steps[-1].reward, steps[-1].info["success"]) == (0.0, False)
    assert fake.CALLS[-1] == "tear_down ContactsAddContact"
    env.close()


def test_miniwob_ends_by_itself_and_does_not_go_home(fake: Any) -> None:
    env, first = begun("MiniWobClickButton", family="miniwob")
    assert first.text.startswith("goal Follow the instructions shown on the top of the screen: Cli")
    last = said(env, gui.Click("0"))
    assert (last.reward, last.terminated) == (1.0, True)
    assert "reset go_home=False" in fake.CALLS
    env.close()


# --- actions --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("action", "performed"),
    [
        (gui.Click("1"), {"action_type": "click", "x": 540, "y": 290}),
        (gui.LongPress(gui.Point(500, 250)), {"action_type": "long_press", "x": 540, "y": 600}),
        (gui.DoubleClick("0"), {"action_type": "double_tap", "x": 540, "y": 90}),
        (
            gui.Type("a b", "0"),
            {"action_type": "input_text", "x": 540, "y": 90, "text": "a b", "clear_text": True},
        ),
        (gui.Type("a"), {"action_type": "input_text", "text": "a"}),
        (gui.Press("Enter"), {"action_type": "keyboard_enter"}),
        (gui.Scroll("down", "0"), {"action_type": "scroll", "direction": "down", "index": 0}),
        (gui.Swipe("left"), {"action_type": "swipe", "direction": "right"}),
        (gui.Home(), {"action_type": "navigate_home"}),
        (gui.Goto("app:contacts"), {"action_type": "open_app", "app_name": "contacts"}),
    ],
)
def test_actions_become_android_worlds(
    fake: Any, action: gui.GuiAction, performed: dict[str, object]
) -> None:
    env, _ = begun("ContactsAddContact")
    assert not said(env, action).info["invalid_action"]
    assert [call for call in fake.CALLS if call.startswith("act")] == [
        f"act { {key: performed[key] for key in ORDER if key in performed} }"
    ]
    env.close()


ORDER = ("action_type", "index", "x", "y", "text", "direction", "app_name", "clear_text")


def test_without_clearing_a_text_is_added_as_android_world_does(fake: Any) -> None:
    env, _ = begun("ContactsAddContact", clear_text=False)
    step = said(env, gui.Goto("app:contacts"), gui.Type("An", "0"), gui.Type("na", "0"))
    assert '= "Anna"' in text(step)
    env.close()


@pytest.mark.parametrize(
    ("action", "reason"),
    [
        (canonical(gui.Click("7")), "there is no element 7"),
        (canonical(gui.Click("2")), "there is no element 2"),  # it cannot be seen
        (canonical(gui.Hover("0")), "AndroidWorld has no action for Hover"),
        (canonical(gui.Press("Tab")), "AndroidWorld has no action for Press"),
        (canonical(gui.Click(gui.Label("Setings"))), "nothing reads 'Setings'; did you mean 'Set"),
        (canonical(gui.Type("", "0")), "AndroidWorld types no empty text"),
        (canonical(gui.Swipe("up", "0")), "AndroidWorld scrolls an element or the screen"),
        (canonical(gui.Scroll("up", gui.Point(1, 1))), "AndroidWorld scrolls an element or the"),
        ("tap", "expected JSON"),
    ],
)
def test_what_cannot_be_done_costs_a_step_and_says_why(fake: Any, action: str, reason: str) -> None:
    env, _ = begun("SystemWifiTurnOff")
    step = env.step(action)
    assert step.info["invalid_action"] is True
    assert text(step).startswith(f"not possible: {reason}")
    assert not [call for call in fake.CALLS if call.startswith("act")]
    env.close()


def test_an_element_that_is_gone_when_it_is_scrolled_is_no_fault_of_the_emulator(
    fake: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    env, _ = begun("SystemWifiTurnOff")
    said(env, gui.Click("0"))
    shown = fake.PHONE._elements()
    monkeypatch.setattr(fake.PHONE, "_elements", lambda: shown[:1])
    step = said(env, gui.Scroll("down", "1"))
    assert text(step).startswith("not possible: list index out of range")
    env.close()


def test_a_models_android_world_json_reaches_the_controller_unchanged(fake: Any) -> None:
    form = AndroidWorldJson(width=1080, height=2400)
    env, _ = begun("ContactsAddContact")
    for action in (
        {"action_type": "swipe", "direction": "left"},
        {"action_type": "scroll", "direction": "down"},
        {"action_type": "click", "x": 540, "y": 290},
        {"action_type": "open_app", "app_name": "contacts"},
    ):
        env.step(cast("str", form.parse(json.dumps(action))))
        assert fake.CALLS[-1] == f"act {action}"
    env.close()


# --- pictures -------------------------------------------------------------------------------------


def test_pictures_stand_as_the_phone_is_held(fake: Any) -> None:
    env, first = begun("ContactsAddContact", observe=("screenshot", "marks"))
    bare, boxes = (Picture.open(io.BytesIO(image.png)) for image in first.images)
    assert bare.size == boxes.size == (1080, 2400)
    assert bare.getpixel((0, 0)) == (255, 255, 255)
    assert bare.getpixel((40, 0)) == (0, 0, 0) != boxes.getpixel((40, 0))
    assert first.text == "goal " + first.text.removeprefix("goal ")
    step = said(env, gui.Click("1"))
    assert [tuple(spot[:2]) for spot in cast("list[Any]", step.info["spots"])] == [(500, 121)]
    fake.PHONE.orientation = 1
    step = said(env, gui.Wait())
    assert isinstance(step.observation, Observation)
    turned = Picture.open(io.BytesIO(step.observation.images[0].png))
    assert turned.size == (2400, 1080)
    # as m3a_utils._logical_to_physical has it: logical (x, y) is physical (width - y, x)
    assert turned.getpixel((0, 1079)) == (255, 255, 255)
    fake.PHONE.orientation = 0
    env.close()


def test_pictures_may_be_shrunk(fake: Any) -> None:
    env, first = begun("ContactsAddContact", observe="screenshot", picture_width=270)
    assert Picture.open(io.BytesIO(first.images[0].png)).size == (270, 600)
    env.close()


# --- failures -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("AdbDies", "execute_action wait raised OSError: adb: device offline"),
        ("VerdictFails", r"VerdictFails.is_successful raised ValueError: database is locked"),
    ],
)
def test_an_emulator_that_fails_is_connected_anew_and_put_in_order(
    fake: Any, name: str, words: str
) -> None:
    env, _ = begun(name)
    with pytest.raises(DeviceError, match=words):
        said(env, gui.Wait(), gui.Done())
    assert fake.CALLS[-2:] == ["load 5554 8554", f"tear_down {name}"]
    with pytest.raises(RuntimeError, match="the episode is over"):
        said(env, gui.Wait())
    env.task = "SystemWifiTurnOff"
    env.reset(tasks(env)[0])
    assert fake.CALLS[-2:] == ["initialize SystemWifiTurnOff", "reset go_home=True"]
    assert said(env, gui.Click("0"), gui.Click("1"), gui.Done()).reward == 1.0
    env.close()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("BeginFails", "BeginFails.initialize_task raised RuntimeError: Failed to restore"),
        ("NoTree", "initialize_task raised RuntimeError: Could not get a11y tree."),
    ],
)
def test_a_task_that_does_not_begin_is_put_away_before_the_next(
    fake: Any, name: str, words: str
) -> None:
    env = AndroidWorld(task=name, pause_s=0.0)
    with pytest.raises(DeviceError, match=words):
        env.reset(tasks(env)[0])
    env.task = "SystemWifiTurnOff"
    env.reset(tasks(env)[0])
    assert fake.CALLS.index(f"tear_down {name}") < fake.CALLS.index("initialize SystemWifiTurnOff")
    env.close()


def test_a_call_that_hangs_is_given_up_in_time(fake: Any) -> None:
    env, _ = begun("Hangs", patience_s=0.5)
    began = time.monotonic()
    with pytest.raises(DeadlineError, match="execute_action wait did not come to an end"):
        said(env, gui.Wait())
    assert fake.CALLS[-1] == "tear_down Hangs"
    env.close()
    assert time.monotonic() - began < 5


def test_an_emulator_that_stays_away_is_asked_again_for_the_next_episode(
    fake: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    env, _ = begun("AdbDies")
    ours = fake.load_and_setup_env
    launcher = sys.modules["android_world.env.env_launcher"]

    def refuse(**_: object) -> None:
        raise ConnectionError("no emulator")

    monkeypatch.setattr(launcher, "load_and_setup_env", refuse)
    with pytest.raises(DeviceError, match="adb: device offline"):
        said(env, gui.Wait())
    with pytest.raises(DeviceError, match="the emulator at 5554 raised ConnectionError"):
        env.reset(tasks(env)[0])
    assert "tear_down AdbDies" not in fake.CALLS
    monkeypatch.setattr(launcher, "load_and_setup_env", ours)
    env.reset(tasks(env)[0])
    assert fake.CALLS.count("tear_down AdbDies") == 1
    env.close()


def test_a_verdict_stands_where_tidying_up_fails(
    fake: Any, caplog: pytest.LogCaptureFixture
) -> None:
    env, _ = begun("TearDownFails")
    assert said(env, gui.Done()).reward == 1.0
    assert "TearDownFails.tear_down raised RuntimeError: adb: closed" in caplog.text
    env.reset(tasks(env)[0])
    assert fake.CALLS.count("load 5554 8554") == 2
    env.close()


def test_without_an_emulator_the_error_says_where_none_was(fake: Any) -> None:
    env = AndroidWorld(console_ports=(6666,), task="SystemWifiTurnOff")
    with pytest.raises(DeviceError, match="the emulator at 6666 raised ConnectionError"):
        env.reset(tasks(env)[0])
    env.close()


def test_each_episode_in_flight_has_an_emulator_of_its_own(fake: Any) -> None:
    both = {"console_ports": (5554, 5556), "grpc_ports": (8554, 8556), "pause_s": 0.0}
    envs = [AndroidWorld(task="SystemWifiTurnOff", **both, patience_s=1.0) for _ in range(3)]  # type: ignore[arg-type]
    for env in envs[:2]:
        env.reset(tasks(env)[0])
    assert [call for call in fake.CALLS if "load" in call] == ["load 5554 8554", "load 5556 8556"]
    with pytest.raises(DeviceError, match=r"no emulator is free \(env.console_ports: 5554, 5556\)"):
        envs[2].reset(tasks(envs[2])[0])
    envs[0].close()
    envs[2].reset(tasks(envs[2])[0])
    for env in envs:
        env.close()


def test_failed_episodes_are_counted_and_their_siblings_play_on(
    fake: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AndroidWorld, "runs_in", "thread")  # quicker than a process
    names = ("AdbDies", "SystemWifiTurnOff")
    env = AndroidWorld(task=names, pause_s=0.0)
    home = canonical(gui.Wait())
    replies = [says(home), says(canonical(gui.Done()))]
    episodes = [play_one(env, replies, task) for task in tasks(env)]
    assert [e.stop for e in episodes] == [Stop.ERROR, Stop.DONE]
    env.close()


@pytest.mark.slow
def test_the_checker_passes_it(fake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(INSIDE), prepend=":")
    ports = tuple(range(8))  # copies of an env play side by side
    settings = {"console_ports": ports, "grpc_ports": ports, "pause_s": 0.0, "patience_s": 5.0}
    env = AndroidWorld(task="ContactsAddContact", **settings)  # type: ignore[arg-type]
    report = check_env(env, tasks=2)
    assert [line for line in report.lines() if line.startswith("FAIL")] == []
    assert REVISION in (fake.__doc__ or "")
