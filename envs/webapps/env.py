"""Small applications in a real browser: mail, a shop, a calendar, settings, files.

    goal Delete the mail about rent from ann. Turn wifi off.
    [1] h1 Home
    [2] button Mail
    [3] button Settings
    > {"action":"click","target":"2"}

(`pip install 'agentrl[gui]'` and a Chromium.) The pages are our own; `layout: phone` shows them on
a touch screen of 390x844 with long presses and swipes, which is a phone's web page, not Android.
What the applications hold is one JSON value, and an episode succeeds if in the end it differs from
the first one by exactly what was asked for: whatever else was changed makes it fail, and much of it
cannot be undone. Beside what should be done there is often something that does more of it
(`Delete all` beside `Delete`). With `asks` there are questions, which `answer` ends, and requests
that cannot be fulfilled, which `infeasible` ends; what stands before them is to be done first.

Actions are those of `text/gui.py`; points are thousandths of the screen. Elements are numbered anew
in each observation, and only those that can be seen are listed.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar, Literal, NamedTuple, cast, get_args

from annotated_types import Ge, Le

from agentrl.core.errors import ConfigError, EnvError
from agentrl.core.protocols import Env, RunsIn
from agentrl.core.registry import register
from agentrl.core.starts import Tasks, digest
from agentrl.core.types import Action, Json, Observation, Split, Spot, Step, Task
from agentrl.envs.browser.observe import (
    Aspect,
    Element,
    Screen,
    View,
    axtree_text,
    dom_text,
    install,
    marked,
    screenshot,
)
from agentrl.envs.browser.perform import Hands, ImpossibleActionError, labelled, numbered, spots
from agentrl.envs.browser.pool import BrowserSettings, PageLease, close_idle, lease
from agentrl.envs.webapps.endings import is_same
from agentrl.envs.webapps.errands import Data, Errand, Frame, Layout, apply, facts, unpacked
from agentrl.envs.webapps.solve import advise, is_more
from agentrl.envs.webapps.tasks import APPS, AppName, Asked, Wanted, in_hindsight, starts
from agentrl.text import gui

INDEX = Path(__file__).resolve().parent / "pages" / "index.html"
SCREENS: Mapping[Layout, Screen] = {"desktop": Screen(1024, 640), "phone": Screen(390, 844)}
APP = "app:"
SKIPPED = ".system"
"""The phone's own two buttons, for which there are the actions `back` and `home`."""
LOOK = """skip => {
  __agentrl.forget();
  return {state: __app.getState(), view: __agentrl.view(skip)};
}"""
TAKE_STATE = "state => __app.setState(JSON.parse(state))"
WITH_MENUS = (("mail", "list"), ("files", "folder"))


class Saved(NamedTuple):
    """A snapshot: the pages' whole state as JSON, the task, and how far the episode is."""

    goal: str
    errands: tuple[Errand, ...]
    first: str
    """The data in the beginning, as JSON."""
    limit: int
    state: str
    steps: int = 0
    is_over: bool = False

    @property
    def data(self) -> Data:
        """What the applications hold."""
        return cast("Data", json.loads(self.state)["data"])

    @property
    def frame(self) -> Frame:
        """Where one is."""
        return cast("Frame", json.loads(self.state)["ui"]["stack"][-1])

    @property
    def ends(self) -> str:
        """Which action ends it: `done`, `answer` or `infeasible`."""
        return self.errands[-1].ends

    def is_ended_by(self, act: gui.GuiAction) -> bool:
        """Whether this is the right last word; of an errand any answer says that it is done."""
        match act:
            case gui.Done():
                return self.ends == "done"
            case gui.Answer(message):
                says = self.errands[-1].says
                return self.ends == "done" or (says is not None and is_same(message, says))
            case gui.Infeasible():
                return self.ends == "infeasible"
        return False

    @property
    def wanted(self) -> Counter[str]:
        """What matters of the data once everything is done."""
        every = [c for errand in self.errands for way in errand.ways for c in way.does]
        return facts(apply(every, cast("Data", json.loads(self.first))))


@register("env", "webapps")
@dataclass(kw_only=True)
class WebApps(Env):
    """Mail, shop, calendar, settings and files in a real browser, on a desktop or a phone."""

    runs_in: ClassVar[RunsIn] = "inline"
    timeout_s: ClassVar[float] = 60.0
    actions: ClassVar[str] = "gui"
    extra: ClassVar[str] = "gui"

    apps: tuple[AppName, ...] = ("mail", "shop", "calendar", "settings", "files")
    """Which applications there are."""
    layout: Layout = "phone"
    """`phone`: 390x844, touch, one thing at a time; `desktop`: 1024x640, mouse, a sidebar."""
    steps_low: Annotated[int, Ge(1), Le(20)] = 1
    """Actions that the solution takes at least (1 to `steps`)."""
    steps: Annotated[int, Ge(1), Le(20)] = 6
    """Actions that the solution takes at most, the last `done` not counted (`steps_low` to 20)."""
    asks: tuple[Asked, ...] = ("errand",)
    """What is asked for: an `errand`, a `question` about what the applications hold, something
    that is `impossible`, or one of several; where there are steps left, errands stand before it."""
    distractors: Annotated[int, Ge(0), Le(12)] = 2
    """Mails, goods, events and files beyond two of each (0 to 12)."""
    ends: Literal["done", "reached"] = "done"
    """The episode ends when the model says so, or as soon as the goal is `reached` (that of an
    errand; a question must be answered)."""
    observe: Aspect | tuple[Aspect, ...] = "dom"
    """What is shown: `dom` (elements as lines), `axtree` (as a tree of roles), `screenshot`,
    `marks` (a screenshot with numbered boxes), or several."""
    targets: Literal["number", "text"] = "number"
    """How the expert and the random player name elements: by `number`, or by their `text` where
    that is enough. Who else plays may do both."""
    repeat_goal: bool = False
    """Say the goal in each observation (for context policies that forget the first)."""
    cap: Annotated[int, Ge(1)] | None = None
    """Actions until truncation; `none` is twice those of the solution and three more."""
    browser: BrowserSettings = field(default_factory=BrowserSettings)
    """Which browser, and its limits."""
    train_tasks: Annotated[int, Ge(1)] = 2_000
    """Length of the train split; each task is another start."""
    dev_tasks: Annotated[int, Ge(1)] = 200
    """Length of the dev split."""
    test_tasks: Annotated[int, Ge(1)] = 400
    """Length of the test split."""

    def __post_init__(self) -> None:
        chosen = {"apps": (self.apps, APPS), "asks": (self.asks, get_args(Asked))}
        for name, (given, known) in chosen.items():
            if not given or len(set(given)) < len(given):
                listed = ", ".join(known)
                raise ConfigError(f"env.{name}: expected some of {listed}, each once, got {given}")
        if self.steps_low > self.steps:
            raise ConfigError(
                f"env.steps_low: must be at most env.steps={self.steps}, got {self.steps_low}"
            )
        self._aspects = (self.observe,) if isinstance(self.observe, str) else self.observe
        if not self._aspects:
            raise ConfigError("env.observe: expected at least one aspect, got none")
        self._screen = SCREENS[self.layout]
        self._is_seen = not {"screenshot", "marks"}.isdisjoint(self._aspects)
        self._spots: list[Spot] = []
        self._lease: PageLease | None = None
        self._now: Saved | None = None
        self._view: View | None = None

    def tasks(self, split: Split) -> Sequence[Task]:
        """Distinct starts (state and request), all solvable; a hash decides the split (2:1:1)."""
        lengths = {"train": self.train_tasks, "dev": self.dev_tasks, "test": self.test_tasks}
        apps = tuple(app for app in APPS if app in self.apps)
        wanted = Wanted(apps, self.layout, self.steps_low, self.steps, self.distractors, self.asks)
        return Tasks("webapps", split, lengths[split], starts(wanted))

    async def reset(self, task: Task) -> Observation:
        """Furnish the applications. Raises `EnvError` for a task that is not this env's."""
        try:
            saved = self._begin(task)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise EnvError(
                f"webapps: expected a task of this env, whose data holds data, stack, errands and "
                f"cost, got {task.id} ({type(error).__name__}: {error})"
            ) from error
        await self.restore(saved)
        return await self._observation(self._playing(), is_first=True)

    def _begin(self, task: Task) -> Saved:
        held = {
            name: dict(cast("Mapping[str, Json]", table))
            for name, table in cast("Mapping[str, Json]", task.data["data"]).items()
        }
        apps = [app for app in APPS if app in self.apps]
        ui = {"layout": self.layout, "apps": apps, "stack": task.data["stack"], "focus": None}
        return Saved(
            goal=task.instruction,
            errands=unpacked(task.data["errands"]),
            first=json.dumps(held),
            limit=self.cap or 2 * int(str(task.data["cost"])) + 3,
            state=json.dumps({"data": held, "ui": ui}),
        )

    async def _page(self) -> PageLease:
        """A page in which the applications are loaded."""
        kept = self._lease
        if kept is not None and kept.is_due:
            await self._give_back()
            kept = None
        if kept is None:
            size = (self._screen.width, self._screen.height)
            is_phone = self.layout == "phone"
            kept = await lease(self.browser, viewport=size, touch=is_phone, roots=(INDEX.parent,))
            self._lease = kept
            await install(kept)
            await kept.call(kept.page.goto(INDEX.as_uri()), "opening the applications")
        return kept

    async def step(self, action: Action) -> Step:
        """Act. What the page does not offer costs a step, and is reported invalid.

        Raises:
            BrowserError: the page or its browser failed.
        """
        now = self._playing()
        complaint, self._spots = "", []
        act: gui.GuiAction = gui.Wait()
        try:
            act = gui.read(action if isinstance(action, str) else " ".join(action))
            await self._perform(await self._page(), act)
        except (gui.MalformedError, ImpossibleActionError) as error:
            complaint = f"not possible: {error}"
        await self._look(now._replace(steps=now.steps + 1))
        return await self._judged(self._playing(), act, complaint)

    async def _perform(self, page_lease: PageLease, act: gui.GuiAction) -> None:
        match act:
            case gui.Done() | gui.Answer() | gui.Infeasible() | gui.Wait():
                return
            case gui.Home():
                await self._evaluate("() => __app.home()")
            case gui.Back():
                await self._evaluate("() => __app.back()")
            case gui.Goto(url):
                name = url.removeprefix(APP)
                if not url.startswith(APP) or not await self._evaluate(
                    "name => __app.open(name)", name
                ):
                    known = ", ".join(APP + app for app in self.apps)
                    raise ImpossibleActionError(f"expected one of {known}, got {url:.40}")
            case _:
                is_phone = self.layout == "phone"
                act = numbered(act, self._shown())
                if self._is_seen:
                    self._spots = spots(act, self._shown(), self._screen)
                await Hands(lease=page_lease, screen=self._screen, touch=is_phone).perform(act)

    async def _evaluate(self, script: str, argument: object = None) -> object:
        page_lease = await self._page()
        return await page_lease.call(page_lease.page.evaluate(script, argument), "the applications")

    async def _look(self, now: Saved) -> None:
        """Take in the pages as they are; what a reload has lost is put back."""
        page_lease = await self._page()
        if page_lease.counts["navigations"]:
            page_lease.counts["navigations"] = 0
            await self._evaluate(TAKE_STATE, now.state)
        found = await page_lease.read(LOOK, SKIPPED, "the applications")
        self._view = View.of(cast("Mapping[str, object]", found["view"]))
        self._now = now._replace(state=json.dumps(found["state"], sort_keys=True))

    async def _judged(self, now: Saved, act: gui.GuiAction, complaint: str) -> Step:
        """End the episode if it is over, and say what came of the action."""
        holding, wanted = facts(now.data), now.wanted
        is_reached = holding == wanted
        is_said = isinstance(act, gui.Done | gui.Answer | gui.Infeasible)
        is_enough = self.ends == "reached" and now.ends == "done" and not is_said
        success = is_reached and (is_enough or now.is_ended_by(act))
        terminated = is_said or success
        truncated = not terminated and now.steps >= now.limit
        observation = await self._observation(now, complaint)
        self._now = now._replace(is_over=terminated or truncated)
        first = facts(cast("Data", json.loads(now.first)))
        spoilt = ((first & wanted) - holding) + ((holding - first) - wanted)
        info: dict[str, object] = {
            "metrics": {"steps": float(now.steps), "collateral": float(spoilt.total())},
            "spots": self._spots,
        }
        if complaint:
            info["invalid_action"] = True
        if self._now.is_over:
            info["success"] = success and terminated
        return Step(
            observation=observation,
            reward=float(success and terminated),
            terminated=terminated,
            truncated=truncated,
            info=info,
        )

    async def close(self) -> None:
        """Give the page back; the next reset opens another one."""
        self._now = None
        await self._give_back()
        await close_idle()

    async def _give_back(self) -> None:
        kept, self._lease, self._view = self._lease, None, None
        if kept is not None:
            await kept.give_back()

    def snapshot(self) -> Saved | None:
        """The whole state; immutable, and it may be sent to another process."""
        return self._now

    async def restore(self, snapshot: Saved | None) -> None:
        """Go on from a snapshot as if nothing had happened since. Raises `BrowserError`."""
        self._now, self._view = snapshot, None
        if snapshot is not None:
            page_lease = await self._page()
            page_lease.begin()
            await self._evaluate(TAKE_STATE, snapshot.state)
            await self._look(snapshot)

    def state_key(self) -> str:
        """A hash of the goal and of the pages' whole state; not the number of steps."""
        now = self._begun()
        return digest(f"{now.goal}\n{now.state}")

    def hindsight(self, task: Task) -> Task | None:
        """The request from the same start that what was changed of the settings would fulfil."""
        return in_hindsight(task, json.loads(self._begun().first), self._begun().data)

    def legal_actions(self) -> list[str]:
        """What can be done with what is in sight; texts are those that the goal needs, answers the
        words in sight."""
        now, view = self._playing(), self._seen()
        ways = [way for errand in now.errands for way in errand.ways]
        texts = sorted({text for w in ways if w.do == "type" for text in w.need.values()})
        has_menus = (now.frame["app"], now.frame["screen"]) in WITH_MENUS
        menu = gui.LongPress if self.layout == "phone" else gui.RightClick
        found: list[gui.GuiAction] = (
            [gui.Back()] if self.ends == "reached" else [gui.Back(), gui.Done()]
        )
        found += [gui.Infeasible()] if "impossible" in self.asks else []
        if "question" in self.asks:
            seen = " ".join(f"{e.text} {e.value}" for e in view.elements if e.is_visible)
            words = re.findall(r"\d[\d.:]*|[^\W\d]+", f"yes no {seen}")
            found += [gui.Answer(word) for word in dict.fromkeys(words)]
        for element in view.elements:
            if not element.is_visible:
                continue
            if element.options:
                found += [gui.Select(element.ref, option) for option in element.options]
            elif element.tag == "input_text":
                found += [gui.Type(text, element.ref) for text in texts]
            elif element.tag == "button":
                found.append(gui.Click(element.ref))
                found += [menu(element.ref)] if has_menus else []
        if self.layout == "phone":
            found += [gui.Home(), gui.Swipe("left"), gui.Swipe("right")]
        return [self._said(action) for action in found]

    def expert_action(self) -> str:
        """The solution's next step from wherever one is; what others broke is not mended."""
        now = self._playing()
        first = cast("Data", json.loads(now.first))
        view = self._seen()
        return self._said(advise(now.errands, now.data, first, now.frame, view, self.layout))

    def _shown(self) -> list[Element]:
        """What can be seen."""
        return [element for element in self._seen().elements if element.is_visible]

    def _said(self, action: gui.GuiAction) -> str:
        return gui.canonical(labelled(action, self._shown()) if self.targets == "text" else action)

    def check(self, goal: str) -> bool | None:
        """`reached`: whether the data is what was asked for. A sentence of the goal: whether that
        part is done. None for any other, and for what ends in words."""
        now = self._begun()
        if goal.strip() == "reached" and now.ends == "done":
            return facts(now.data) == now.wanted
        first = cast("Data", json.loads(now.first))
        for errand in now.errands:
            if errand.text == goal.strip() and errand.ends == "done":
                return errand.is_done(now.data, first)
        return None

    def _begun(self) -> Saved:
        if self._now is None:
            raise RuntimeError("webapps: no state before the first reset(task)")
        return self._now

    def _playing(self) -> Saved:
        if self._now is None or self._now.is_over:
            raise RuntimeError("webapps: the episode is over (or never began): call reset(task)")
        return self._now

    def _seen(self) -> View:
        if self._view is None:
            raise RuntimeError("webapps: the pages were not looked at yet: call reset(task)")
        return self._view

    async def _observation(
        self, now: Saved, complaint: str = "", *, is_first: bool = False
    ) -> Observation:
        lines = [complaint] if complaint else []
        if is_first or self.repeat_goal:
            lines.append(f"goal {now.goal}")
        view, images = self._seen(), []
        elements = self._shown()
        has_more = is_more(view)
        for aspect in self._aspects:
            if aspect in ("dom", "axtree"):
                lines.append(dom_text(elements) if aspect == "dom" else axtree_text(elements))
                lines += ["more below"] if has_more and not now.frame.get("menu") else []
            else:
                taken = await screenshot(await self._page(), self._screen)
                is_bare = aspect == "screenshot"
                images.append(taken if is_bare else marked(taken, elements, self._screen))
        return Observation("\n".join(lines), images=tuple(images))
