"""A faithful fake of AndroidWorld's interface, with a phone of three screens behind it.

Names, signatures, defaults and what is raised were read in google-research/android_world at
d9c569f764b3a5629321858de03ff653d0f24056 (`task_evals/task_eval.py`, `env/interface.py`,
`env/actuation.py`, `env/json_action.py`, `env/representation_utils.py`, `env/env_launcher.py`,
`registry.py`, `task_evals/miniwob/miniwob_base.py`). The phone is this file's own; so are the
tasks, but for the names, templates and complexities of the first two. What is called is written to
`CALLS`.
"""

from __future__ import annotations

import dataclasses
import random
import sys
import threading
from types import ModuleType
from typing import Any

import numpy as np

CALLS: list[str] = []
HANG = threading.Event()
"""A call that hangs goes on when this is set."""
WIDTH, HEIGHT = 1080, 2400


# --- env/representation_utils.py, env/json_action.py, env/interface.py ----------------------------


@dataclasses.dataclass
class BoundingBox:
    x_min: float | int
    x_max: float | int
    y_min: float | int
    y_max: float | int

    @property
    def center(self) -> tuple[float, float]:
        return (self.x_min + self.x_max) / 2.0, (self.y_min + self.y_max) / 2.0


@dataclasses.dataclass
class UIElement:
    text: str | None = None
    content_description: str | None = None
    class_name: str | None = None
    bbox: BoundingBox | None = None
    bbox_pixels: BoundingBox | None = None
    hint_text: str | None = None
    is_checked: bool | None = None
    is_checkable: bool | None = None
    is_clickable: bool | None = None
    is_editable: bool | None = None
    is_enabled: bool | None = None
    is_focused: bool | None = None
    is_focusable: bool | None = None
    is_long_clickable: bool | None = None
    is_scrollable: bool | None = None
    is_selected: bool | None = None
    is_visible: bool | None = None
    package_name: str | None = None
    resource_name: str | None = None
    tooltip: str | None = None
    resource_id: str | None = None
    metadata: dict[str, Any] | None = None


TYPES = (
    *("click", "double_tap", "scroll", "swipe", "input_text", "navigate_home", "navigate_back"),
    *("keyboard_enter", "open_app", "status", "wait", "long_press", "answer", "unknown"),
)


@dataclasses.dataclass
class JSONAction:
    action_type: str | None = None
    index: str | int | None = None
    x: int | None = None
    y: int | None = None
    text: str | None = None
    direction: str | None = None
    goal_status: str | None = None
    app_name: str | None = None
    keycode: str | None = None
    clear_text: bool | None = None

    def __post_init__(self) -> None:
        if self.action_type not in TYPES:
            raise ValueError(f"Invalid action type: {self.action_type}")
        if self.index is not None:
            self.index = int(self.index)
            if self.x is not None or self.y is not None:
                raise ValueError("Either an index or a <x, y> should be provided.")
        if self.direction and self.direction not in ("left", "right", "down", "up"):
            raise ValueError(f"Invalid scroll direction: {self.direction}")


@dataclasses.dataclass(frozen=True)
class State:
    pixels: np.ndarray
    forest: Any
    ui_elements: list[UIElement]
    auxiliaries: dict[str, Any] | None = None


class AsyncAndroidEnv:
    """`AsyncEnv` on a phone that is a dict: the screen, a switch, two fields and what is saved."""

    interaction_cache = ""

    def __init__(self) -> None:
        self.store: dict[str, Any] = {}
        self.orientation = 0
        self.is_dead = False
        self.fault = ""
        self.clean()

    def clean(self) -> None:
        self.screen, self.focus, self.offset = "home", "", 0
        self.store = {"wifi": True, "name": "", "number": "", "contacts": [], "entered": 0}

    @property
    def logical_screen_size(self) -> tuple[int, int]:
        return (WIDTH, HEIGHT) if self.orientation in (0, 2) else (HEIGHT, WIDTH)

    def reset(self, go_home: bool = False) -> State:
        CALLS.append(f"reset go_home={go_home}")
        if go_home:
            self.screen = "home"
        self.interaction_cache = ""
        return self.get_state()

    def get_state(self, wait_to_stabilize: bool = False) -> State:
        self._live()
        if self.fault == "look":
            raise RuntimeError("Could not get a11y tree.")
        pixels = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
        pixels[0, 0] = 255
        return State(pixels, None, self._elements(), {})

    def execute_action(self, action: JSONAction) -> None:
        CALLS.append(f"act { ({k: v for k, v in vars(action).items() if v is not None}) }")
        if action.action_type == "answer":
            self.interaction_cache = action.text or ""
            return
        if action.action_type == "status":
            return
        self._live()
        if self.fault == "act":
            self.is_dead = True
            raise OSError("adb: device offline")
        if self.fault == "hang":
            HANG.wait(30)
        self._actuate(action, self._elements())

    def close(self) -> None:
        CALLS.append("close")

    # --- env/actuation.py, on the phone -------------------------------------------------------

    def _actuate(self, action: JSONAction, elements: list[UIElement]) -> None:
        kind = action.action_type
        if kind in ("click", "double_tap", "long_press"):
            self._tap(action, elements)
        elif kind == "input_text":
            self._type(action, elements)
        elif kind == "keyboard_enter":
            self.store["entered"] += 1
        elif kind == "scroll":
            box = elements[int(action.index)].bbox_pixels if action.index else None
            self.offset = 0 if action.direction == "up" else 900 if box is None else 300
        elif kind in ("navigate_home", "navigate_back"):
            self.screen = "home"
        elif kind == "open_app":
            if not action.app_name:
                raise ValueError("No app name provided")
            if action.app_name in ("settings", "contacts"):
                self.screen = action.app_name

    def _type(self, action: JSONAction, elements: list[UIElement]) -> None:
        if action.index is not None or action.x is not None:
            self._tap(action, elements)
        if action.text and self.focus:
            kept = "" if action.clear_text else self.store[self.focus]
            self.store[self.focus] = kept + action.text
            self.store["entered"] += 1

    def _tap(self, action: JSONAction, elements: list[UIElement]) -> None:
        x, y = action.x, action.y
        if action.index is not None:
            at = int(action.index)
            if at < 0 or at >= len(elements):
                raise ValueError(
                    f"Invalid element index: {at}, must be between 0 and {len(elements) - 1}."
                )
            box = elements[at].bbox_pixels
            if box is None:
                raise ValueError("Bbox is not present on element.")
            x, y = (int(n) for n in box.center)
        if x is None or y is None:
            raise ValueError(f"Invalid click action: {action}")
        for element in elements:
            box = element.bbox_pixels
            if box and box.x_min <= x < box.x_max and box.y_min <= y < box.y_max:
                self._tapped(element.resource_name or "")

    def _tapped(self, name: str) -> None:
        self.focus = name if name in ("name", "number") else ""
        if name in ("settings", "contacts"):
            self.screen = name
        elif name == "wifi":
            self.store["wifi"] = not self.store["wifi"]
        elif name == "save":
            self.store["contacts"].append((self.store["name"], self.store["number"]))

    def _live(self) -> None:
        if self.is_dead:
            raise OSError("adb: device offline")

    def _elements(self) -> list[UIElement]:
        shown: dict[str, list[dict[str, Any]]] = {
            "home": [
                {"text": "Settings", "resource_name": "settings", "is_clickable": True},
                {"content_description": "Contacts", "resource_name": "contacts"},
                {"text": "behind", "is_visible": False},
            ],
            "settings": [
                {"class_name": "android.widget.ScrollView", "is_scrollable": True},
                {
                    "class_name": "android.widget.Switch",
                    "text": "Wi-Fi",
                    "resource_name": "wifi",
                    "is_checkable": True,
                    "is_checked": self.store["wifi"],
                    "is_clickable": True,
                },
            ],
            "contacts": [
                *(
                    {
                        "class_name": "android.widget.EditText",
                        "hint_text": name,
                        "text": self.store[name] or None,
                        "resource_name": name,
                        "is_editable": True,
                        "is_focused": self.focus == name,
                    }
                    for name in ("name", "number")
                ),
                {"text": "Save", "resource_name": "save", "is_clickable": True},
                {"text": "no box", "bbox_pixels": None},
            ],
        }
        return [
            UIElement(
                **{
                    "class_name": "android.widget.TextView",
                    "is_enabled": True,
                    "bbox_pixels": BoundingBox(40, 1040, 200 * at - self.offset, 200 * at + 180),
                    **one,
                }
            )
            for at, one in enumerate(shown[self.screen])
        ]


# --- task_evals/task_eval.py ----------------------------------------------------------------------


class TaskEval:
    template = ""
    start_on_home_screen = True
    app_names: tuple[str, ...] = ()
    complexity: float = 1.0

    def __init__(self, params: dict[str, Any]) -> None:
        self.initialized = False
        self._params = params

    @property
    def name(self) -> str:
        return self.__class__.__name__

    @property
    def params(self) -> dict[str, Any]:
        return self._params

    @property
    def goal(self) -> str:
        return self.template.format(**self.params)

    @classmethod
    def generate_random_params(cls) -> dict[str, Any]:
        return {}

    @classmethod
    def set_device_time(cls, env: AsyncAndroidEnv | None) -> None:
        del env

    def initialize_task(self, env: AsyncAndroidEnv) -> None:
        CALLS.append(f"initialize {self.name}")
        env.interaction_cache = ""
        if self.initialized:
            raise RuntimeError(f"{self.name}.initialize_task() is already called.")
        self.initialized = True
        env.clean()
        seed = self.params.get("seed")
        if seed is not None:
            random.seed(seed)

    def is_successful(self, env: AsyncAndroidEnv) -> float:
        if not self.initialized:
            raise RuntimeError(
                f"{self.name}.initialize_task() must be called before {self.name}.is_successful()."
            )
        return 1.0

    def tear_down(self, env: AsyncAndroidEnv) -> None:
        CALLS.append(f"tear_down {self.name}")
        self.initialized = False
        env.fault = ""
        env.clean()


class SystemWifiTurnOff(TaskEval):
    template = "Turn wifi {on_or_off}."

    @classmethod
    def generate_random_params(cls) -> dict[str, Any]:
        return {"on_or_off": "off"}

    def is_successful(self, env: AsyncAndroidEnv) -> float:
        super().is_successful(env)
        return 0.0 if env.store["wifi"] else 1.0


class ContactsAddContact(TaskEval):
    template = "Create a new contact for {name}. Their number is {number}."
    complexity = 1.2

    @classmethod
    def generate_random_params(cls) -> dict[str, Any]:
        name = random.choice(["Ann", "Bob", "Cai", "Dee"])
        return {"name": name, "number": f"{random.randrange(10**9)}"}

    def is_successful(self, env: AsyncAndroidEnv) -> float:
        super().is_successful(env)
        name, number = self.params["name"], self.params["number"]
        found = env.store["contacts"][-1:] or [("", "")]
        return float((found[0][0] == name) + (found[0][1] == number)) / 2


class NotesQuestion(TaskEval):
    template = "What is {one} and one?"

    @classmethod
    def generate_random_params(cls) -> dict[str, Any]:
        return {"one": random.randrange(100)}

    def is_successful(self, env: AsyncAndroidEnv) -> float:
        super().is_successful(env)
        return float(env.interaction_cache == str(self.params["one"] + 1))


class Faulty(TaskEval):
    """Begins, and then something breaks."""

    template = "Break."
    fault = ""

    def initialize_task(self, env: AsyncAndroidEnv) -> None:
        super().initialize_task(env)
        env.fault = self.fault


class AdbDies(Faulty):
    fault = "act"


class NoTree(Faulty):
    fault = "look"


class Hangs(Faulty):
    fault = "hang"


class BeginFails(TaskEval):
    def initialize_task(self, env: AsyncAndroidEnv) -> None:
        super().initialize_task(env)
        raise RuntimeError("Failed to restore snapshot")


class VerdictFails(TaskEval):
    def is_successful(self, env: AsyncAndroidEnv) -> float:
        raise ValueError("database is locked")


class TearDownFails(TaskEval):
    def tear_down(self, env: AsyncAndroidEnv) -> None:
        super().tear_down(env)
        raise RuntimeError("adb: closed")


class MiniWobClickButton(TaskEval):
    template = "Follow the instructions shown on the top of the screen: {utterance}"
    start_on_home_screen = False
    complexity = 3

    @property
    def goal(self) -> str:
        if not self.initialized:
            raise ValueError("MiniWoB task must be initialized using initialize_task")
        return super().goal

    def initialize_task(self, env: AsyncAndroidEnv) -> None:
        super().initialize_task(env)
        self._params["utterance"] = "Click Settings."

    def is_successful(self, env: AsyncAndroidEnv) -> float:
        super().is_successful(env)
        return float(env.screen == "settings")


def is_episode_terminated(env: AsyncAndroidEnv) -> bool:
    return env.screen == "settings"


# --- registry.py, env/env_launcher.py -------------------------------------------------------------

ORDINARY = (SystemWifiTurnOff, ContactsAddContact, NotesQuestion)
FAULTY = (AdbDies, NoTree, Hangs, BeginFails, VerdictFails, TearDownFails)


class TaskRegistry:
    def get_registry(self, family: str) -> Any:
        families = {"android_world": (*ORDINARY, *FAULTY), "miniwob": (MiniWobClickButton,)}
        if family not in families:
            raise ValueError(f"Unsupported family: {family}")
        return {task.__name__: task for task in families[family]}


PHONE = AsyncAndroidEnv()
"""The first emulator; what connects to it anew finds it as it is, but alive."""
PHONES = {5554: PHONE}


def load_and_setup_env(
    console_port: int = 5554,
    emulator_setup: bool = False,
    freeze_datetime: bool = True,
    adb_path: str = "~/Android/Sdk/platform-tools/adb",
    grpc_port: int = 8554,
) -> AsyncAndroidEnv:
    CALLS.append(f"load {console_port} {grpc_port}")
    if console_port == 6666:
        raise ConnectionError("no emulator")
    phone = PHONES.setdefault(console_port, AsyncAndroidEnv())
    phone.is_dead = False
    return phone


def _module(name: str, **names: object) -> None:
    module = ModuleType(name)
    vars(module).update(names)
    sys.modules[name] = module
    parent, _, last = name.rpartition(".")
    setattr(sys.modules[parent], last, module)


_module("android_world.registry", TaskRegistry=TaskRegistry)
_module("android_world.env")
_module("android_world.env.env_launcher", load_and_setup_env=load_and_setup_env)
_module("android_world.env.json_action", JSONAction=JSONAction)
_module("android_world.task_evals")
_module("android_world.task_evals.miniwob")
_module(
    "android_world.task_evals.miniwob.miniwob_base", is_episode_terminated=is_episode_terminated
)
