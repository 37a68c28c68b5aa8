"""A desktop application with a real mouse and keyboard: an address book in one Tk window.

    goal Move sam to work. Set the phone of ben to 5555481.
    [1] row * gwen 5554320 (work)
    [2] row ben 5559911 (work)
    ...
    [8] entry Phone
    > {"action":"click","target":"2"}
    > {"action":"type","target":"8","text":"5555481"}

(Debian: `apt-get install xvfb xdotool python3-tk`.) Each env has an X server without a screen
(Xvfb), on which the application runs in a process of its own; events are sent by xdotool. The
application lists its elements itself, from its widget tree. All that it holds is one dict, so that
snapshots are exact, and an episode succeeds if on `done` the contacts are those at its beginning
but for what was asked. `Delete all` lies beside `Delete`.

Actions are those of `text/gui.py`; points are thousandths of the screen, and elements are numbered
anew in each observation. There is no window manager, and one window.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, cast

from annotated_types import Ge, Gt, Le

from agentrl.core.errors import ConfigError, DeadlineError
from agentrl.core.protocols import Env, RunsIn
from agentrl.core.registry import register
from agentrl.core.starts import Tasks, digest
from agentrl.core.types import Action, Observation, Split, Spot, Step, Task
from agentrl.envs.browser.observe import Box, Element, Screen, dom_text, marked
from agentrl.envs.browser.perform import ImpossibleActionError, numbered, spots
from agentrl.envs.desktop.display import Desktop, DesktopError, chord, python_with_tk, typed
from agentrl.envs.desktop.errands import Contact, advise, begun, facts, starts
from agentrl.text import gui

SCREEN = Screen(560, 360)
Shown = Literal["elements", "screenshot", "marks"]
USED = frozenset({"row", "entry", "button", "checkbutton", "radiobutton"})
WHEEL = {"up": "4", "down": "5", "left": "6", "right": "7"}
CLICK = ("click", "--delay", "0")
"""By itself xdotool waits a tenth of a second after each."""
NOTCH = 100
"""Thousandths of the screen that a notch of the wheel is taken for."""
HOLD_S = 1.0


class Saved(NamedTuple):
    """A snapshot: what the application holds, the task, and how far the episode is."""

    goal: str
    wanted: tuple[str, ...]
    contacts: str
    """The wanted contacts as JSON."""
    limit: int
    state: str
    steps: int = 0
    is_over: bool = False


@register("env", "desktop")
@dataclass(kw_only=True)
class DesktopBook(Env):
    """An address book on an X desktop of its own, by mouse and keyboard."""

    runs_in: ClassVar[RunsIn] = "thread"
    timeout_s: ClassVar[float] = 60.0
    actions: ClassVar[str] = "gui"

    contacts: Annotated[int, Ge(2), Le(9)] = 4
    """Contacts in the book (2 to 9)."""
    errands: Annotated[int, Ge(1), Le(4)] = 2
    """Changes that are asked for, each of another contact (1 to 4, at most `contacts`)."""
    observe: Shown | tuple[Shown, ...] = "elements"
    """What is shown: `elements` (as lines), `screenshot`, `marks` (a screenshot with numbered
    boxes), or several."""
    repeat_goal: bool = False
    """Say the goal in each observation (for context policies that forget the first)."""
    cap: Annotated[int, Ge(1)] | None = None
    """Actions until truncation; `none` is 10 and 10 more for each errand."""
    patience_s: Annotated[float, Gt(0)] = 20.0
    """Seconds within which the application, the X server and xdotool have to answer (above 0)."""
    train_tasks: Annotated[int, Ge(1)] = 2_000
    """Length of the train split; each task is another start."""
    dev_tasks: Annotated[int, Ge(1)] = 200
    """Length of the dev split."""
    test_tasks: Annotated[int, Ge(1)] = 400
    """Length of the test split."""

    def __post_init__(self) -> None:
        self._aspects = (self.observe,) if isinstance(self.observe, str) else self.observe
        if not self._aspects:
            raise ConfigError("env.observe: expected at least one aspect, got none")
        if self.errands > self.contacts:
            raise ConfigError(
                f"env.errands: must be at most env.contacts={self.contacts}, got {self.errands}"
            )
        self._is_seen = not {"screenshot", "marks"}.isdisjoint(self._aspects)
        self._desktop: Desktop | None = None
        self._now: Saved | None = None
        self._elements: tuple[Element, ...] = ()
        self._keys: dict[str, str] = {}
        self._spots: list[Spot] = []

    def tasks(self, split: Split) -> Sequence[Task]:
        """Distinct starts (book and request); a hash decides the split (2:1:1). Raises
        `MissingDataError` where a program is missing."""
        python_with_tk()
        lengths = {"train": self.train_tasks, "dev": self.dev_tasks, "test": self.test_tasks}
        return Tasks("desktop", split, lengths[split], starts(self.contacts, self.errands))

    def reset(self, task: Task) -> Observation:
        """Furnish the book. Raises `DesktopError` or `DeadlineError`."""
        wanted = cast("Sequence[Contact]", task.data["wanted"])
        held = cast("Sequence[Contact]", task.data["contacts"])
        with self._fatal():
            return self._begun(task, wanted, held)

    def _begun(self, task: Task, wanted: Sequence[Contact], held: Sequence[Contact]) -> Observation:
        self.restore(
            Saved(
                goal=task.instruction,
                wanted=tuple(facts(wanted)),
                contacts=json.dumps(list(wanted)),
                limit=self.cap or 10 + 10 * self.errands,
                state=json.dumps(begun(held)),
            )
        )
        return self._observed(is_first=True)

    def step(self, action: Action) -> Step:
        """A click, a text, a key and so on, as typed JSON; `done` ends the episode, as `answer` and
        `infeasible` do, which are never right. What cannot be done costs a step, and is reported
        invalid.

        Raises:
            DesktopError: the application, the X server or xdotool failed.
            DeadlineError: one of them hung.
        """
        now = self._playing()
        with self._fatal():
            return self._stepped(now, action)

    @contextmanager
    def _fatal(self) -> Iterator[None]:
        """Where the desktop fails, it is ended; the next reset starts another one."""
        try:
            yield
        except (DesktopError, DeadlineError):
            self.close()
            raise

    def _stepped(self, now: Saved, action: Action) -> Step:
        complaint, self._spots = "", []
        act: gui.GuiAction = gui.Wait()
        try:
            act = gui.read(action if isinstance(action, str) else " ".join(action))
            self._perform(act)
        except (gui.MalformedError, ImpossibleActionError) as error:
            complaint = f"not possible: {error}"
        self._look(now._replace(steps=now.steps + 1))
        return self._judged(act, complaint)

    def _judged(self, act: gui.GuiAction, complaint: str) -> Step:
        now = self._playing()
        is_over = isinstance(act, gui.Done | gui.Answer | gui.Infeasible)
        held = facts(json.loads(now.state)["contacts"])
        success = isinstance(act, gui.Done) and tuple(held) == now.wanted
        is_cut = not is_over and now.steps >= now.limit
        observation = self._observed(complaint)
        self._now = now._replace(is_over=is_over or is_cut)
        info: dict[str, object] = {
            "invalid_action": bool(complaint),
            "metrics": {"steps": float(now.steps)},
            "spots": self._spots,
        }
        if is_over or is_cut:
            info["success"] = success
        return Step(
            observation=observation,
            reward=float(success),
            terminated=is_over,
            truncated=is_cut,
            info=info,
        )

    # --- acting -------------------------------------------------------------------------------

    def _perform(self, act: gui.GuiAction) -> None:
        """Send the events. Raises `ImpossibleActionError` if there are none for this."""
        if isinstance(act, gui.Done | gui.Answer | gui.Infeasible | gui.Wait):
            return
        act = numbered(act, self._elements)
        if self._is_seen:
            self._spots = spots(act, self._elements, SCREEN)
        match act:
            case gui.Click(target):
                self._at(target, *CLICK, "1")
            case gui.DoubleClick(target):
                self._at(target, "click", "--repeat", "2", "--delay", "40", "1")
            case gui.RightClick(target):
                self._at(target, *CLICK, "3")
            case gui.Hover(target):
                self._at(target)
            case gui.LongPress(target):
                self._at(target, "mousedown", "1", "sleep", str(HOLD_S), "mouseup", "1")
            case gui.Drag(start, end):
                self._at(start, "mousedown", "1")
                self._at(end, "mouseup", "1")
            case _:
                self._perform_other(act)

    def _perform_other(self, act: gui.GuiAction) -> None:
        match act:
            case gui.Type(text, target):
                if target is not None:
                    self._at(target, *CLICK, "1")
                    self._open.tool("key", "ctrl+a")
                    if not text:
                        self._open.tool("key", "BackSpace")
                for call in typed(text):
                    self._open.tool(*call)
            case gui.Press(keys, target):
                if target is not None:
                    self._at(target, *CLICK, "1")
                self._open.tool("key", chord(keys))
            case gui.Scroll(direction, target, amount):
                notches = str(max(1, round(amount / NOTCH)))
                where = target or gui.Point(500, 500)
                self._at(where, *CLICK, "--repeat", notches, WHEEL[direction])
            case _:
                raise ImpossibleActionError(f"{gui.NAMES[type(act)]} means nothing here")

    def _at(self, target: gui.Target, *then: str) -> None:
        """Move the pointer there, and then the rest."""
        if isinstance(target, gui.Point):
            x, y = (target.x * SCREEN.width / gui.FULL, target.y * SCREEN.height / gui.FULL)
        else:
            element = {e.ref: e for e in self._elements}.get(str(target))
            if element is None or element.spot is None:
                raise ImpossibleActionError(f"there is no element {target}")
            x, y = element.spot
        place = (min(int(x), SCREEN.width - 1), min(int(y), SCREEN.height - 1))
        self._open.tool("mousemove", *map(str, place), *then)

    # --- looking ------------------------------------------------------------------------------

    def _look(self, now: Saved, **said: object) -> None:
        found = self._open.ask(**(said or {"look": True}))
        self._now = now._replace(state=json.dumps(found["state"], sort_keys=True))
        self._elements = tuple(
            _element(str(at), one) for at, one in enumerate(found["elements"], start=1)
        )
        self._keys = {one["key"]: str(at) for at, one in enumerate(found["elements"], start=1)}

    def _observed(self, complaint: str = "", *, is_first: bool = False) -> Observation:
        now = self._playing()
        lines = [complaint] if complaint else []
        if is_first or self.repeat_goal:
            lines.append(f"goal {now.goal}")
        if "elements" in self._aspects:
            lines.append(dom_text(self._elements))
        images = []
        if self._is_seen:
            bare = self._open.picture()
            kinds = {"screenshot": bare, "marks": marked(bare, self._elements, SCREEN)}
            images = [kinds[aspect] for aspect in self._aspects if aspect in kinds]
        return Observation("\n".join(lines), images=tuple(images))

    def _playing(self) -> Saved:
        if self._now is None or self._now.is_over or self._desktop is None:
            raise RuntimeError("desktop: the episode is over (or never began): call reset(task)")
        return self._now

    @property
    def _open(self) -> Desktop:
        if self._desktop is None:
            self._desktop = Desktop(SCREEN, self.patience_s)
        return self._desktop

    def close(self) -> None:
        """End the desktop; the next reset starts another one."""
        desktop, self._desktop, self._now = self._desktop, None, None
        if desktop is not None:
            desktop.close()

    # --- abilities ----------------------------------------------------------------------------

    def snapshot(self) -> Saved | None:
        """The whole state; immutable, and it may be sent to another process."""
        return self._now

    def restore(self, snapshot: Saved | None) -> None:
        """Go on from a snapshot as if nothing had happened since."""
        self._now = snapshot
        if snapshot is not None:
            self._open.tool("mousemove", str(SCREEN.width - 1), str(SCREEN.height - 1))
            self._look(snapshot, set=json.loads(snapshot.state))

    def state_key(self) -> str:
        """What is asked, and all that the application holds; not the number of steps."""
        now = self._now
        if now is None or now.is_over:
            return "over"
        return digest(f"{now.goal} {now.state}")

    def expert_action(self) -> str:
        """What the solver does now."""
        now = self._playing()
        move = advise(json.loads(now.state), json.loads(now.contacts))
        if move is None:
            return gui.canonical(gui.Done())
        target = self._keys[move.key]
        act = gui.Click(target) if move.text is None else gui.Type(move.text, target)
        return gui.canonical(act)

    def legal_actions(self) -> list[str]:
        """Clicks on what can be used, the words of the goal in each field, and `done`."""
        words = [word.strip(".") for word in self._playing().goal.split()]
        found: list[gui.GuiAction] = [gui.Done()]
        for element in self._elements:
            if element.tag == "entry":
                told = [w for w in words if w.isdigit() == (element.name == "Phone")]
                found += [gui.Type(word, element.ref) for word in told]
            elif element.tag in USED:
                found.append(gui.Click(element.ref))
        return [gui.canonical(action) for action in found]


def _element(ref: str, one: Mapping[str, Any]) -> Element:
    left, top, width, height = one["box"]
    return Element(
        ref=ref,
        tag=one["tag"],
        role=one["tag"] if one["tag"] in USED else "generic",
        name=str(one.get("name", "")),
        text=one["text"],
        value=one["value"],
        options=(),
        box=Box(left, top, width, height),
        states=tuple(one["states"]),
        spot=(left + width / 2, top + height / 2),
        depth=0,
        look="",
    )
