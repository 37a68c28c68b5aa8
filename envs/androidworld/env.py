"""AndroidWorld: tasks in the applications of a running Android emulator, judged by its state.

    goal Turn wifi off.
    [0] TextView Settings
    [1] TextView Contacts
    > {"action":"click","target":"0"}
    [0] ScrollView (scrollable)
    [1] Switch Wi-Fi (checked)
    > {"action":"click","target":"1"}
    > {"action":"done"}   (reward 1)

(From the fake of the tests. Rawles et al. 2024, arXiv 2405.14573.) AndroidWorld is installed from
its repository, and needs an emulator that was begun with `-grpc 8554`. Its own classes are played:
parameters are drawn from the task's seed, `is_successful` is the reward (0 to 1) when the model
says `done`, `answer` or `infeasible`, and after ten steps for each unit of `complexity` an episode
is cut, and worth nothing, as there. The test split has the seeds of AndroidWorld's own runs
(`task_random_seed` 30). Whatever an episode did is undone by `tear_down` at its end; where the
emulator failed or hung, over a new connection.

Actions are those of `text/gui.py`; an element's number is its index in AndroidWorld's list. What
AndroidWorld has no action for (hovering, dragging, other keys than Enter) is not possible. It
presses Enter after each text; with `clear_text` a text typed into an element takes the place of
what it holds, as elsewhere here. Each episode in flight needs an emulator of its own.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, cast

from annotated_types import Ge, Gt, Le

from agentrl.core.errors import ConfigError, DataError, DeadlineError, did_you_mean
from agentrl.core.protocols import Env, RunsIn
from agentrl.core.registry import register
from agentrl.core.starts import Numbered, digest
from agentrl.core.types import Action, Image, Json, Observation, Split, Spot, Step, Task
from agentrl.envs.androidworld.device import (
    Claim,
    Device,
    DeviceError,
    Ports,
    Seen,
    TaskEval,
    family_of,
)
from agentrl.envs.androidworld.screen import GENERIC, elements_of, picture_of, shrunk
from agentrl.envs.browser.observe import Element, Screen, dom_text, marked
from agentrl.envs.browser.perform import ImpossibleActionError, numbered, spots
from agentrl.text import gui
from agentrl.text.actions.android_world import AndroidWorldJson

SEEDS: Mapping[Split, int] = {"train": 32, "dev": 31, "test": 30}
"""AndroidWorld's `task_random_seed` of each split; it makes a seed for each instance of a task."""
MEND_S = 60.0
"""Seconds for a new connection and `tear_down` where an emulator failed."""
Family = Literal["android_world", "android", "information_retrieval", "miniwob", "miniwob_subset"]
Shown = Literal["elements", "screenshot", "marks"]


@register("env", "androidworld")
@dataclass(kw_only=True)
class AndroidWorld(Env):
    """AndroidWorld's tasks on a running Android emulator, as elements or pictures."""

    runs_in: ClassVar[RunsIn] = "process"
    timeout_s: ClassVar[float] = 330.0
    actions: ClassVar[str] = "gui"
    splits_by: ClassVar[Literal["start", "seed"]] = "seed"
    licence: ClassVar[str] = "Apache-2.0 (android_world)"
    cite: ClassVar[str] = "Rawles et al. 2024 (AndroidWorld), arXiv 2405.14573"

    family: Family = "android_world"
    """Which of AndroidWorld's families the tasks are of."""
    task: str | tuple[str, ...] = ()
    """A task of the family, such as `ContactsAddContact`, or several; empty for all of them."""
    observe: Shown | tuple[Shown, ...] = "elements"
    """What is shown: `elements` (as lines), `screenshot`, `marks` (a screenshot with numbered
    boxes), or several."""
    picture_width: Annotated[int, Ge(0)] = 0
    """Pixels to which the width of pictures is reduced (0: as the emulator has them)."""
    repeat_goal: bool = False
    """Say the goal in each observation (for context policies that forget the first)."""
    clear_text: bool = True
    """A text typed into an element takes the place of what it holds; without this it is added, as
    AndroidWorld does by itself."""
    success_at: Annotated[float, Gt(0), Le(1)] = 1.0
    """Score from which an episode counts as a success (above 0 to 1)."""
    cap: Annotated[int, Ge(1)] | None = None
    """Steps until truncation; `none` is AndroidWorld's limit for the task."""
    pause_s: Annotated[float, Ge(0)] | None = None
    """Seconds between an action and the look at the screen; `none` waits until the screen is still
    (AndroidWorld's own way; its MiniWoB++ takes 0.2)."""
    console_ports: tuple[int, ...] = (5554,)
    """The emulators, by console port; each episode in flight takes one that is free."""
    grpc_ports: tuple[int, ...] = (8554,)
    """Their ports for gRPC, in the same order."""
    adb_path: str = ""
    """Where adb is; empty is AndroidWorld's default, `~/Android/Sdk/platform-tools/adb`."""
    patience_s: Annotated[float, Gt(0)] = 240.0
    """Seconds in which an episode has to begin, and each step to end (above 0); another minute goes
    by where an emulator that failed is put in order. `rollout.env_timeout_s` has to be larger."""
    train_instances: Annotated[int, Ge(1)] = 20
    """Instances of each task in the train split, with parameters of their own."""
    dev_instances: Annotated[int, Ge(1)] = 1
    """Instances of each task in the dev split."""
    test_instances: Annotated[int, Ge(1)] = 1
    """Instances of each task in the test split (AndroidWorld's `n_task_combinations`)."""

    def __post_init__(self) -> None:
        if len(self.console_ports) != len(self.grpc_ports) or not self.console_ports:
            raise ConfigError(
                "env.grpc_ports: expected one for each of env.console_ports="
                f"{self.console_ports}, got {self.grpc_ports}"
            )
        self._aspects = (self.observe,) if isinstance(self.observe, str) else self.observe
        if not self._aspects:
            raise ConfigError("env.observe: expected at least one aspect, got none")
        self._is_seen = not {"screenshot", "marks"}.isdisjoint(self._aspects)
        self._claim: Claim | None = None
        self._device: Device | None = None
        self._undone: TaskEval | None = None
        self._goal, self._limit, self._steps = "", 0, 0
        self._elements: tuple[Element, ...] | None = None
        self._screen = Screen(1, 1)
        self._spots: list[Spot] = []

    def tasks(self, split: Split) -> Sequence[Task]:
        """Instances of each task, in turns. Raises `ConfigError` for a task that is not in the
        family, `MissingDataError` without AndroidWorld."""
        lengths = {
            "train": self.train_instances,
            "dev": self.dev_instances,
            "test": self.test_instances,
        }
        return Instances(self._names(), split, lengths[split])

    def _names(self) -> tuple[str, ...]:
        known = family_of(self.family)
        names = (self.task,) if isinstance(self.task, str) else self.task
        for name in names:
            if name not in known:
                raise ConfigError(
                    f"env.task: AndroidWorld's family {self.family} has no task "
                    f"{name!r}{did_you_mean(name, known)} ({len(known)} are known)"
                )
        return names or tuple(sorted(known))

    def reset(self, task: Task) -> Observation:
        """Put the emulator into the task's first state.

        Raises:
            DeviceError: the emulator or AndroidWorld failed, or no emulator is free.
            DeadlineError: it took longer than `patience_s`.
        """
        due = time.monotonic() + self.patience_s
        kind = family_of(self.family)[str(task.data["task"])]
        self._end(due)
        self._steps, self._spots = 0, []
        with self._mending():
            device = self._ready(due)
            try:
                begun = device.begin(kind, task.seed, due)
            finally:
                self._undone = device.task
            self._goal, self._limit = begun.goal, self.cap or max(begun.limit, 1)
            return self._observed(device, due, is_first=True)

    @contextmanager
    def _mending(self) -> Iterator[None]:
        """Where the emulator fails, what was done to it is undone before that is told."""
        try:
            yield
        except (DeviceError, DeadlineError):
            self._elements = None
            if self._undone is not None:
                with suppress(DeviceError, DeadlineError):
                    self._ready(time.monotonic() + MEND_S)
            raise

    def _ready(self, due: float) -> Device:
        """A connection that works, on which nothing is left to undo."""
        if self._device is not None and self._device.is_lost:
            self._device.close()
            self._device = None
        if self._claim is None:
            every = [Ports(*both) for both in zip(self.console_ports, self.grpc_ports, strict=True)]
            self._claim = Claim(every, due)
        if self._device is None:
            self._device = Device(self._claim.ports, self.adb_path)
            self._device.open(due)
        if self._undone is not None:
            self._device.put_away(self._undone, due)
            self._undone = None
        return self._device if not self._device.is_lost else self._ready(due)

    def step(self, action: Action) -> Step:
        """A tap, a text, a scroll and so on, as typed JSON; `done`, `answer` and `infeasible` end
        the episode, which is judged. What cannot be done costs a step, and is reported invalid.

        Raises:
            DeviceError: the emulator or AndroidWorld failed.
            DeadlineError: it took longer than `patience_s`.
        """
        device, elements = self._playing()
        self._steps += 1
        with self._mending():
            return self._stepped(device, elements, action, time.monotonic() + self.patience_s)

    def _stepped(
        self, device: Device, elements: Sequence[Element], action: Action, due: float
    ) -> Step:
        self._spots = []
        complaint = ""
        try:
            act = gui.read(action if isinstance(action, str) else " ".join(action))
            if isinstance(act, gui.Answer):
                device.act({"action_type": "answer", "text": act.message}, due)
            if isinstance(act, gui.Answer | gui.Done | gui.Infeasible):
                return self._judged(device, due)
            act = numbered(act, elements)
            if self._is_seen:
                self._spots = spots(act, elements, self._screen)
            device.act(self._said(act, elements), due)
        except (DataError, ImpossibleActionError) as error:
            complaint = f"not possible: {error}"
        if device.has_ended(due):
            return self._judged(device, due, complaint)
        observation = self._observed(device, due, complaint)
        is_cut = self._steps >= self._limit
        info: dict[str, object] = {"invalid_action": bool(complaint), "spots": self._spots}
        if is_cut:
            info |= {"success": False, "metrics": {"steps": float(self._steps)}}
            self._end(due)
        return Step(observation=observation, truncated=is_cut, info=info)

    def _judged(self, device: Device, due: float, complaint: str = "") -> Step:
        score = device.score(due)
        self._end(due)
        info = {
            "success": score >= self.success_at,
            "invalid_action": bool(complaint),
            "metrics": {"steps": float(self._steps)},
            "spots": self._spots,
        }
        text = f"the task is over, score {score:g}"
        return Step(observation=text, reward=score, terminated=True, info=info)

    def _said(self, act: gui.GuiAction, elements: Sequence[Element]) -> dict[str, Json]:
        """AndroidWorld's JSON for an action. An element that is tapped is named by its centre, as
        it was seen: its index may be another's meanwhile. Raises `DataError`, or
        `ImpossibleActionError`."""
        if isinstance(act, gui.Type) and not act.text:
            raise ImpossibleActionError("AndroidWorld types no empty text")
        width, height = self._screen
        said = json.loads(AndroidWorldJson(width=width, height=height).spelt(act))
        found = {e.ref: e for e in elements}.get(str(said.get("index")))
        if "index" in said and found is None:
            raise ImpossibleActionError(f"there is no element {said['index']}")
        if isinstance(act, gui.Scroll | gui.Swipe):
            if "x" in said or (isinstance(act, gui.Swipe) and found is not None):
                raise ImpossibleActionError(
                    "AndroidWorld scrolls an element or the screen, and swipes over the screen"
                )
        elif found is not None and found.spot is not None:
            del said["index"]
            said["x"], said["y"] = int(found.spot[0]), int(found.spot[1])
        if isinstance(act, gui.Type) and act.target is not None and self.clear_text:
            said["clear_text"] = True
        return cast("dict[str, Json]", said)

    def close(self) -> None:
        """Put the task away and end the connection; the next reset opens another one."""
        self._end(time.monotonic() + 4.0)
        device, self._device = self._device, None
        claim, self._claim = self._claim, None
        self._undone = None
        if device is not None:
            device.close()
        if claim is not None:
            claim.let_go()

    def _end(self, due: float) -> None:
        """No episode is played any more; what it did is undone, unless the emulator is lost."""
        self._elements = None
        device = self._device
        if self._undone is not None and device is not None and not device.is_lost:
            task, self._undone = self._undone, None
            device.put_away(task, due)

    def state_key(self) -> str:
        """Goal and all elements that can be seen, with their places; not the number of steps."""
        if self._elements is None:
            return "over"
        seen = [(e.tag, e.text, e.name, e.value, e.states, e.look, e.box) for e in self._elements]
        return digest(json.dumps([self._goal, seen]))

    def legal_actions(self) -> list[str]:
        """Taps on what can be used, scrolling of what scrolls, and back."""
        _, elements = self._playing()
        found: list[gui.GuiAction] = []
        for element in elements:
            if "scrollable" in element.states:
                found += [gui.Scroll(way, element.ref) for way in ("down", "up")]
            elif element.role != GENERIC:
                found.append(gui.Click(element.ref))
        return [gui.canonical(action) for action in (*found, gui.Back())]

    def _playing(self) -> tuple[Device, tuple[Element, ...]]:
        if self._device is None or self._device.is_lost or self._elements is None:
            raise RuntimeError("androidworld: the episode is over (or never began): call reset")
        return self._device, self._elements

    def _observed(
        self, device: Device, due: float, complaint: str = "", *, is_first: bool = False
    ) -> Observation:
        """What the aspects ask for; the goal in the beginning."""
        seen = device.look(self.pause_s, self._is_seen, due)
        self._screen = Screen(*seen.size)
        self._elements = elements = elements_of(seen.state.ui_elements, self._screen)
        lines = [complaint] if complaint else []
        if is_first or self.repeat_goal:
            lines.append(f"goal {self._goal}")
        if "elements" in self._aspects:
            lines.append(dom_text(elements))
        images = tuple(self._pictures(seen, elements)) if self._is_seen else ()
        return Observation("\n".join(filter(None, lines)), images=images)

    def _pictures(self, seen: Seen, elements: Sequence[Element]) -> list[Image]:
        bare = picture_of(seen.state.pixels, seen.orientation)
        kinds = {"screenshot": bare, "marks": marked(bare, elements, self._screen)}
        return [shrunk(kinds[a], self.picture_width) for a in self._aspects if a in kinds]


class Instances(Numbered):
    """Names in turns, each with the seed that AndroidWorld gives the instance."""

    def __init__(self, names: Sequence[str], split: Split, each: int) -> None:
        super().__init__(split, each * len(names))
        self._names = names

    def made(self, number: int) -> Task:
        """The name whose turn it is, its next instance."""
        instance, name = number // len(self._names), self._names[number % len(self._names)]
        unique = f"{SEEDS[self._split]}_{name}_{instance}"
        seed = int(hashlib.sha256(unique.encode()).hexdigest(), 16) % 2**32
        ident = f"androidworld/{name}/{self._split}/{instance:04d}"
        return Task(id=ident, seed=seed, data={"task": name})
