"""A running emulator and the task that is on it, by AndroidWorld's own classes.

Calls are made by a thread of the device's own, one after another, and each is waited for until a
deadline: the emulator, adb and the forwarder of its elements may all hang. A device of which a call
failed or was late is lost; another connection then puts the emulator in order.

The interface was read in AndroidWorld's repository as of February 2026 (`REVISION`).
"""

from __future__ import annotations

import fcntl
import logging
import os
import queue
import random
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as LateError
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar, cast

from agentrl.core.errors import DeadlineError, EnvError, MissingDataError
from agentrl.core.types import Json
from agentrl.envs.browser.perform import ImpossibleActionError

if TYPE_CHECKING:
    import numpy as np

T = TypeVar("T")
REVISION = "d9c569f764b3a5629321858de03ff653d0f24056"
STEPS = 10
"""Steps that AndroidWorld allows for each unit of a task's complexity."""
CLOSE_S = 4.0
"""Seconds that putting a task away, and closing a connection, may take each at the end."""
CLAIM_S = 0.2
"""Between two tries at emulators that are all taken."""
MINIWOB = "miniwob"
"""Tasks of this name end by themselves, as soon as their page has a reward."""
_log = logging.getLogger(__name__)


class BoundingBox(Protocol):
    """A rectangle in pixels of the screen."""

    x_min: float
    x_max: float
    y_min: float
    y_max: float


class UIElement(Protocol):
    """What AndroidWorld knows of an element."""

    text: str | None
    content_description: str | None
    class_name: str | None
    bbox_pixels: BoundingBox | None
    hint_text: str | None
    is_checked: bool | None
    is_checkable: bool | None
    is_clickable: bool | None
    is_editable: bool | None
    is_enabled: bool | None
    is_focused: bool | None
    is_long_clickable: bool | None
    is_scrollable: bool | None
    is_selected: bool | None
    is_visible: bool | None
    resource_name: str | None


class State(Protocol):
    """The screen: `pixels[H, W, 3]` as it is held upright, and its elements."""

    pixels: np.ndarray
    ui_elements: Sequence[UIElement]


class Phone(Protocol):
    """AndroidWorld's `AsyncEnv`, as far as it is needed."""

    logical_screen_size: tuple[int, int]
    orientation: int

    def reset(self, go_home: bool = False) -> State:
        """Forget answers; go to the home screen if asked to."""
        ...

    def get_state(self, wait_to_stabilize: bool = False) -> State:
        """The screen, once it is still if asked to wait."""
        ...

    def execute_action(self, action: Any) -> None:
        """Do a `JSONAction`."""

    def close(self) -> None:
        """End the connection."""


class TaskEval(Protocol):
    """AndroidWorld's task: its class makes parameters, an object begins, judges and puts away."""

    goal: str
    complexity: float
    start_on_home_screen: bool

    def __init__(self, params: dict[str, Any]) -> None: ...
    @classmethod
    def generate_random_params(cls) -> dict[str, Any]:
        """Parameters, drawn from the generator of the module `random`."""
        ...

    def initialize_task(self, env: Phone) -> None:
        """Put the phone into the first state."""

    def is_successful(self, env: Phone) -> float:
        """How far it is fulfilled, 0 to 1."""
        ...

    def tear_down(self, env: Phone) -> None:
        """Put the phone back in order."""


class DeviceError(EnvError):
    """AndroidWorld, adb or the emulator failed."""


class Seen(NamedTuple):
    """The screen at one moment; `size` is its width and height as it is held now. The orientation,
    which takes a call of adb, is asked for where there is a picture."""

    state: State
    size: tuple[int, int]
    orientation: int


class Begun(NamedTuple):
    """A task that has begun."""

    goal: str
    limit: int
    """Steps that AndroidWorld allows for it."""


def family_of(name: str) -> Mapping[str, type[TaskEval]]:
    """The tasks of a family, by name. Raises `MissingDataError` without AndroidWorld."""
    try:
        from android_world import registry
    except ImportError as error:
        raise MissingDataError(
            f"android_world cannot be imported ({error}): git clone "
            "https://github.com/google-research/android_world, and in it: pip install -r "
            "requirements.txt; python setup.py install. Then start an emulator as its README says"
        ) from error
    return cast("Mapping[str, type[TaskEval]]", registry.TaskRegistry().get_registry(family=name))


# --- which emulator -------------------------------------------------------------------------------


class Ports(NamedTuple):
    """Where an emulator listens."""

    console: int
    grpc: int


class Claim:
    """One of several emulators, which nobody else on this machine has meanwhile."""

    def __init__(self, every: Sequence[Ports], due: float) -> None:
        """Take the first that is free. Raises `DeviceError` if there is none until `due`."""
        while not any(self._takes(ports) for ports in every):
            if time.monotonic() + CLAIM_S > due:
                raise DeviceError(
                    f"androidworld: no emulator is free (env.console_ports: "
                    f"{', '.join(str(ports.console) for ports in every)}): each episode in flight "
                    "needs one; name more, or set rollout.in_flight to as many"
                )
            time.sleep(CLAIM_S)

    def _takes(self, ports: Ports) -> bool:
        path = Path(tempfile.gettempdir()) / f"agentrl-androidworld-{os.getuid()}-{ports.console}"
        file = path.open("w")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            return False
        self.ports, self._file = ports, file
        return True

    def let_go(self) -> None:
        """Somebody else may have it."""
        self._file.close()


# --- calls that end -------------------------------------------------------------------------------


class Job(NamedTuple):
    """What is called, and where the answer goes."""

    function: Callable[[], object]
    answer: Future[Any]


class Line:
    """A thread that makes one call after another; it does not keep a process alive."""

    def __init__(self) -> None:
        self._inbox: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        threading.Thread(target=self._work, name="androidworld", daemon=True).start()

    def call(self, function: Callable[[], T], due: float, what: str) -> T:
        """What a call returns.

        Raises:
            DeadlineError: it has not returned until `due`.
            ImpossibleActionError: it raised one.
            DeviceError: it raised anything else.
        """
        answer: Future[T] = Future()
        self._inbox.put(Job(function, answer))
        with suppress(LateError):  # of the wait, or raised by the call itself
            answer.exception(max(due - time.monotonic(), 0.0))
        if not answer.done():
            raise DeadlineError(f"androidworld: {what} did not come to an end (env.patience_s)")
        error = answer.exception()
        if error is None or isinstance(error, ImpossibleActionError):
            return answer.result()
        raise DeviceError(f"androidworld: {what} raised {type(error).__name__}: {error}") from error

    def end(self) -> None:
        """No more calls."""
        self._inbox.put(None)

    def _work(self) -> None:
        for function, answer in iter(self._inbox.get, None):
            try:
                answer.set_result(function())
            except BaseException as error:  # noqa: BLE001 - it belongs to whoever asked
                answer.set_exception(error)


class Device:
    """A connection to an emulator. Once a call of it failed it is lost, and only to be closed."""

    def __init__(self, ports: Ports, adb_path: str) -> None:
        self._ports, self._adb_path = ports, adb_path
        self._line = Line()
        self._phone: Phone | None = None
        self.task: TaskEval | None = None
        """Begun, and not yet put away."""
        self.is_lost = False

    def open(self, due: float) -> None:
        """Connect, and freeze the clock as AndroidWorld does. Raises as `Line.call`."""
        self._phone = self._ask(self._load, due, f"the emulator at {self._ports.console}")

    def begin(self, kind: type[TaskEval], seed: int, due: float) -> Begun:
        """Draw the task's parameters, and put the emulator in its state. Raises as `Line.call`."""
        return self._ask(lambda: self._begin(kind, seed), due, f"{kind.__name__}.initialize_task")

    def look(self, pause_s: float | None, has_picture: bool, due: float) -> Seen:
        """The screen, once it is still or `pause_s` have passed. Raises as `Line.call`."""
        return self._ask(lambda: self._look(pause_s, has_picture), due, "get_state")

    def act(self, said: Mapping[str, Json], due: float) -> None:
        """Do AndroidWorld's JSON action.

        Raises:
            ImpossibleActionError: AndroidWorld refuses it: the screen has changed meanwhile.
            DeviceError: something else went wrong.
            DeadlineError: it did not come to an end.
        """
        self._ask(lambda: self._act(said), due, f"execute_action {said['action_type']}")

    def has_ended(self, due: float) -> bool:
        """Whether the task is over by itself (MiniWoB++ alone). Raises as `Line.call`."""
        name = type(self.task).__name__
        if not name.lower().startswith(MINIWOB):
            return False
        return self._ask(self._is_terminated, due, f"the end of {name}")

    def score(self, due: float) -> float:
        """How far the task is fulfilled, 0 to 1. Raises as `Line.call`."""
        task = self.task
        assert task is not None
        found = self._ask(
            lambda: float(task.is_successful(self._here)),
            due,
            f"{type(task).__name__}.is_successful",
        )
        if not 0 <= found <= 1:
            self.is_lost = True
            raise DeviceError(
                f"androidworld: {type(task).__name__}.is_successful: expected 0 to 1, got {found}"
            )
        return found

    def put_away(self, task: TaskEval, due: float) -> None:
        """Undo what a task did to the emulator. A failure loses the device, and is logged: the
        verdict is known, and the next task begins with a new connection."""
        self.task = None
        try:
            self._ask(lambda: task.tear_down(self._here), due, f"{type(task).__name__}.tear_down")
        except (DeviceError, DeadlineError) as error:
            _log.warning("%s", error)

    def close(self) -> None:
        """End the connection; never raises."""
        if self._phone is not None and not self.is_lost:
            with suppress(DeviceError, DeadlineError):
                self._ask(self._phone.close, time.monotonic() + CLOSE_S, "closing")
        self.is_lost = True
        self._line.end()

    @property
    def _here(self) -> Phone:
        assert self._phone is not None
        return self._phone

    def _ask(self, function: Callable[[], T], due: float, what: str) -> T:
        if self.is_lost:
            raise DeviceError(f"androidworld: {what}: the connection was lost")
        try:
            return self._line.call(function, due, what)
        except (DeviceError, DeadlineError):
            self.is_lost = True
            raise

    # --- in the thread ------------------------------------------------------------------------

    def _load(self) -> Phone:
        from android_world.env import env_launcher

        places = {"adb_path": self._adb_path} if self._adb_path else {}
        found = env_launcher.load_and_setup_env(
            console_port=self._ports.console, grpc_port=self._ports.grpc, **places
        )
        return cast("Phone", found)

    def _begin(self, kind: type[TaskEval], seed: int) -> Begun:
        kept = random.getstate()
        try:
            if hasattr(kind, "set_device_time"):  # older ones have a time for all tasks
                kind.set_device_time(self._here)
            random.seed(seed)  # AndroidWorld draws from the generator of the process
            task = kind({**kind.generate_random_params(), "seed": seed})
            self.task = task
            task.initialize_task(self._here)
        finally:
            random.setstate(kept)
        self._here.reset(go_home=task.start_on_home_screen)
        return Begun(task.goal, int(STEPS * task.complexity))

    def _look(self, pause_s: float | None, has_picture: bool) -> Seen:
        if pause_s is not None:
            time.sleep(pause_s)
        state = self._here.get_state(wait_to_stabilize=pause_s is None)
        width, height = self._here.logical_screen_size
        return Seen(state, (width, height), self._here.orientation if has_picture else 0)

    def _act(self, said: Mapping[str, Json]) -> None:
        from android_world.env import json_action

        try:
            self._here.execute_action(json_action.JSONAction(**said))
        except (ValueError, IndexError) as error:
            raise ImpossibleActionError(str(error)) from error

    def _is_terminated(self) -> bool:
        from android_world.task_evals.miniwob import miniwob_base

        return bool(miniwob_base.is_episode_terminated(self._here))
