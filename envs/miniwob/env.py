"""MiniWoB++: small web tasks in a real browser, from the pages that the package `miniwob` ships.

    task Click on the "ok" button.
    [1] div Dapibus. Ac
    [2] button ok
    [3] input_text
    > {"action":"click","target":"2"}   (reward 1)

(`pip install 'agentrl[gui]'` and a Chromium; Shi et al. 2017, Liu et al. 2018, arXiv 1802.08802.)
Actions are those of `text/gui.py`; points are thousandths of the task's 160x210 pixels. The reward
is the task's own without its decay by time, from -1 to 1; above 0 counts as success, as usual.
Instead of its ten seconds there is a limit of steps, and its clock stands still but for `step_ms`
after each action: an episode depends on the seed and the actions alone, however busy the machine.
Splits share no seed; a task that knows few starts (`click-test` has one) repeats them in each.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge

from agentrl.core.errors import ConfigError, did_you_mean
from agentrl.core.protocols import Env, RunsIn
from agentrl.core.registry import register
from agentrl.core.starts import Seeded, digest
from agentrl.core.types import Action, Observation, Split, Spot, Step, Task
from agentrl.envs.browser.observe import (
    Aspect,
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
from agentrl.envs.miniwob.oracles import ORACLES, Scene
from agentrl.envs.miniwob.pages import page_of, pages, pictures_of, task_names
from agentrl.envs.miniwob.reloads import RELOADED, WIDE
from agentrl.text.gui import (
    Click,
    Done,
    GuiAction,
    Infeasible,
    MalformedError,
    Select,
    Type,
    Wait,
    canonical,
    read,
)

CLOCK = Path(__file__).with_name("clock.js").read_text(encoding="utf-8")
SCREEN = Screen(160, 210)
VIEWPORT = Screen(332, 214)
"""For tasks that look different in a viewport without a margin."""
GIVEN_UP = -1.0
"""What saying `done` too early is worth, or `infeasible`: as much as the time running out."""


@register("env", "miniwob")
@dataclass(kw_only=True)
class MiniWob(Env):
    """MiniWoB++ tasks in a real browser, as text or pictures, with typed mouse and key actions."""

    runs_in: ClassVar[RunsIn] = "inline"
    timeout_s: ClassVar[float] = 60.0
    actions: ClassVar[str] = "gui"
    splits_by: ClassVar[Literal["start", "seed"]] = "seed"
    extra: ClassVar[str] = "gui"
    licence: ClassVar[str] = "MIT (miniwob)"
    cite: ClassVar[str] = "Shi et al. 2017 and Liu et al. 2018 (MiniWoB++), arXiv 1802.08802"

    task: str | tuple[str, ...] = "click-button"
    """A task of the package, such as `click-checkboxes`, or a list of them, played in turns."""
    observe: Aspect | tuple[Aspect, ...] = "dom"
    """What is shown: `dom` (elements as lines), `axtree` (as a tree of roles), `screenshot`,
    `marks` (a screenshot with numbered boxes), or several."""
    targets: Literal["number", "text"] = "number"
    """How the expert and the random player name elements: by `number`, or by their `text` where
    that is enough. Who else plays may do both."""
    points: bool = False
    """Say with each element of `dom` where its centre is, in thousandths of the screen."""
    repeat_goal: bool = False
    """Say the goal in each observation (for context policies that forget the first)."""
    cap: Annotated[int, Ge(1)] = 16
    """Steps until truncation."""
    step_ms: Annotated[int, Ge(0)] = 500
    """By how much the task's clock goes on after each action (`wait`: twice as much)."""
    browser: BrowserSettings = field(default_factory=BrowserSettings)
    """Which browser, and its limits."""
    train_tasks: Annotated[int, Ge(1)] = 2_000
    """Length of the train split; each task has another seed (splits share none)."""
    dev_tasks: Annotated[int, Ge(1)] = 200
    """Length of the dev split."""
    test_tasks: Annotated[int, Ge(1)] = 400
    """Length of the test split."""

    def __post_init__(self) -> None:
        self._names = (self.task,) if isinstance(self.task, str) else self.task
        self._aspects = (self.observe,) if isinstance(self.observe, str) else self.observe
        if not self._names or not self._aspects:
            raise ConfigError("miniwob: task and observe need at least one name each")
        self._lease: PageLease | None = None
        self._loaded = ""
        self._name = ""
        self._goal = ""
        self._view: View | None = None
        self._steps = 0
        self._is_seen = not {"screenshot", "marks"}.isdisjoint(self._aspects)
        self._spots: list[Spot] = []
        if not set(self._names) <= ORACLES.keys():
            self.__dict__["expert_action"] = None  # having the method is having the ability

    def tasks(self, split: Split) -> Sequence[Task]:
        """Seeded tasks. Raises `ConfigError` for a task that is not there, `MissingExtraError`."""
        known = task_names()
        for name in self._names:
            if name not in known:
                raise ConfigError(
                    f"env.task: miniwob has no task {name!r}{did_you_mean(name, known)} "
                    f"({len(known)} are in {pages() / 'miniwob'})"
                )
        lengths = {"train": self.train_tasks, "dev": self.dev_tasks, "test": self.test_tasks}
        return Seeded(self._names, split, lengths[split], key="task", before="miniwob/")

    async def reset(self, task: Task) -> Observation:
        """Begin the task that the seed generates. Raises `BrowserError`."""
        self._name, self._goal, self._steps = str(task.data["task"]), "", 0
        self._view = None
        page_lease = await self._page(self._name)
        page_lease.begin()
        # what lies under the pointer looks different, or does when it is noticed
        await page_lease.call(page_lease.page.mouse.move(0, 0), "the pointer")
        found = await page_lease.read("__wob.begin", str(task.seed), f"the start of {self._name}")
        return await self._shown(page_lease, found)

    async def _page(self, name: str) -> PageLease:
        """A page in which the task is loaded, and clean."""
        kept = self._lease
        if kept is not None and kept.is_due:
            await self._give_back()
            kept = None
        if kept is None:
            kept = self._lease = await lease(self.browser, viewport=SCREEN, roots=(pages(),))
            self._loaded = ""
            await install(kept)
            await kept.call(kept.page.add_init_script(CLOCK), "preparing the page")
        if self._loaded != name or name in RELOADED or kept.counts["navigations"]:
            size = (VIEWPORT if name in WIDE else SCREEN)._asdict()
            if kept.page.viewport_size != size:
                await kept.call(kept.page.set_viewport_size(size), "the viewport")
            await kept.call(kept.page.goto(page_of(name).as_uri()), f"opening {name}")
            loaded = kept.page.evaluate("urls => __wob.load(urls)", pictures_of(name))
            await kept.call(loaded, f"the pictures of {name}")
            self._loaded = name
        return kept

    async def step(self, action: Action) -> Step:
        """A click, a key, a text and so on, as typed JSON; `done` and `infeasible` give up. What
        the page does not offer costs a step, and is reported invalid.

        Raises:
            BrowserError: the page or its browser failed.
        """
        page_lease, view = self._playing()
        self._steps += 1
        self._spots = []
        complaint = ""
        try:
            act = read(action if isinstance(action, str) else " ".join(action))
            if isinstance(act, Done | Infeasible):
                return self._ended(page_lease, GIVEN_UP)
            if not isinstance(act, Wait):
                act = numbered(act, view.elements)
                if self._is_seen:
                    self._spots = spots(act, view.elements, SCREEN)
                known = {e.ref: e.spot for e in view.elements if e.spot is not None}
                await Hands(lease=page_lease, screen=SCREEN, known=known).perform(act)
            ms = self.step_ms * (1 + isinstance(act, Wait))
        except (MalformedError, ImpossibleActionError) as error:
            complaint, ms = f"not possible: {error}", self.step_ms
        if page_lease.counts["navigations"]:
            return self._ended(page_lease, 0.0)
        found = await page_lease.read("__wob.pass", ms, "looking at the page")
        if found["isOver"]:
            return self._ended(page_lease, float(str(found["reward"])), is_invalid=bool(complaint))
        observation = await self._shown(page_lease, found, complaint)
        truncated = self._steps >= self.cap
        info: dict[str, object] = {"invalid_action": bool(complaint), "spots": self._spots}
        if truncated:
            info |= {"success": False, "metrics": self._metrics(page_lease)}
            self._view = None
        return Step(observation=observation, truncated=truncated, info=info)

    def _ended(self, page_lease: PageLease, reward: float, *, is_invalid: bool = False) -> Step:
        self._view = None
        metrics = self._metrics(page_lease)
        info = {
            "success": reward > 0,
            "invalid_action": is_invalid,
            "metrics": metrics,
            "spots": self._spots,
        }
        text = f"the task is over, reward {reward:g}"
        return Step(observation=text, reward=reward, terminated=True, info=info)

    def _metrics(self, page_lease: PageLease) -> dict[str, float]:
        names = ("dialogs", "popups", "downloads", "blocked", "navigations")
        counts = {name: float(page_lease.counts[name]) for name in names}
        return {"steps": float(self._steps), **counts}

    async def close(self) -> None:
        """Give the page back; the next reset opens another one."""
        await self._give_back()
        await close_idle()

    async def _give_back(self) -> None:
        kept, self._lease, self._view = self._lease, None, None
        if kept is not None:
            await kept.give_back()

    def state_key(self) -> str:
        """Goal and all that can be seen, pixel boxes included; not the number of steps."""
        if self._view is None:
            return "over"
        seen = [
            (e.tag, e.text, e.value, e.options, e.states, [round(x, 1) for x in e.box], e.look)
            for e in self._view.elements
        ]
        return digest(json.dumps([self._name, self._goal, seen]))

    def legal_actions(self) -> list[str]:
        """Clicks on what is visible, options of lists, and in fields the texts that the goal
        quotes."""
        _, view = self._playing()
        said = self._goal.split('"')[1::2]
        found: list[GuiAction] = []
        for element in view.elements:
            if not (element.is_visible and SCREEN.shows(element.box)):
                continue
            if element.options:
                options = dict.fromkeys(o for o in element.options if o)
                found += [Select(element.ref, option) for option in options]
            else:
                found.append(Click(element.ref))
            if element.tag in ("input_text", "input_password", "textarea"):
                found += [Type(text, element.ref) for text in said if text]
        return [self._said(action, view) for action in found] or [canonical(Wait())]

    def expert_action(self) -> str:
        """What a script that knows the task does now."""
        _, view = self._playing()
        scene = Scene(goal=self._goal, elements=view.elements, steps=self._steps)
        return self._said(ORACLES[self._name](scene), view)

    def _said(self, action: GuiAction, view: View) -> str:
        is_text = self.targets == "text"
        return canonical(labelled(action, view.elements) if is_text else action)

    def _playing(self) -> tuple[PageLease, View]:
        if self._view is None or self._lease is None:
            raise RuntimeError("miniwob: the episode is over (or never began): call reset(task)")
        return self._lease, self._view

    async def _shown(
        self, page_lease: PageLease, found: Mapping[str, object], complaint: str = ""
    ) -> Observation:
        """What the aspects ask for; the goal where it is new."""
        seen = found["view"]
        assert isinstance(seen, dict)
        self._view = view = View.of(seen)
        goal = str(found["goal"])
        lines = [complaint] if complaint else []
        if goal != self._goal or self.repeat_goal:
            lines.append(f"task {goal}")
        self._goal = goal
        images = []
        for aspect in self._aspects:
            if aspect == "dom":
                lines.append(dom_text(view.elements, SCREEN if self.points else None))
            elif aspect == "axtree":
                lines.append(axtree_text(view.elements))
            else:
                taken = await screenshot(page_lease, SCREEN)
                is_bare = aspect == "screenshot"
                images.append(taken if is_bare else marked(taken, view.elements, SCREEN))
        return Observation("\n".join(filter(None, lines)), images=tuple(images))
