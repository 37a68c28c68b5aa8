"""Any task of BrowserGym: MiniWoB++, WebArena, WorkArena and others, by gymnasium id.

    env: {name: browsergym, id: miniwob.click-test}
    env: {name: browsergym, id: [webarena.310, webarena.311], observe: [axtree, marks]}

(`pip install 'agentrl[browsergym]'` brings the core and MiniWoB++; other benchmarks are packages of
their own. Le Sellier De Chezelles et al. 2024, arXiv 2412.05467.) It pins playwright 1.44, so that
it does not go with the extra `gui`. The browser is Playwright's own or, without one, the system's.

What is shown is BrowserGym's own text of the accessibility tree or of the HTML, its screenshot,
or both. Actions are those of `text/gui.py` on its element ids (bids), or points in thousandths of
the screenshot; they become calls of its action set. The reward is the task's, paid when it comes.
Besides the task itself `done`, `answer` and `infeasible` end an episode. Splits share no seed; a
benchmark whose tasks know no seeds (WebArena) has the same start in each.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from annotated_types import Ge

from agentrl.core.errors import ConfigError, DataError
from agentrl.core.protocols import Env, RunsIn
from agentrl.core.registry import register
from agentrl.core.starts import Seeded, digest
from agentrl.core.types import Action, Image, Json, Observation, Split, Step, Task
from agentrl.envs.browsergym.gym import Session, end_playwright, full_id, known, take_browser
from agentrl.text import gui
from agentrl.text.actions.browsergym import BrowserGymCalls

if TYPE_CHECKING:
    import numpy as np

Shown = Literal["axtree", "html", "screenshot", "marks"]
REPEATED = ("InlineTextBox",)
"""Roles that newer browsers than BrowserGym's list, and that say their parent's text again."""
CLICKED = re.compile(r"^\s*\[(\w+)\] (button|link|checkbox|radio|option|tab|menuitem) ", re.M)
FILLED = re.compile(r"^\s*\[(\w+)\] (?:textbox|searchbox|combobox) ", re.M)


@register("env", "browsergym")
@dataclass(kw_only=True)
class BrowserGym(Env):
    """Any gymnasium id of BrowserGym, with typed actions on its element ids."""

    runs_in: ClassVar[RunsIn] = "process"
    timeout_s: ClassVar[float] = 120.0
    actions: ClassVar[str] = "gui"
    splits_by: ClassVar[Literal["start", "seed"]] = "seed"
    extra: ClassVar[str] = "browsergym"
    licence: ClassVar[str] = "Apache-2.0 (BrowserGym), MIT (miniwob)"
    cite: ClassVar[str] = "Le Sellier De Chezelles et al. 2024 (BrowserGym), arXiv 2412.05467"

    id: str | tuple[str, ...] = "miniwob.click-test"
    """A gymnasium id, with `browsergym/` before it or without, or several, played in turns."""
    task_kwargs: dict[str, Json] = field(default_factory=dict)
    """Arguments of the task, as BrowserGym's own."""
    observe: Shown | tuple[Shown, ...] = "axtree"
    """What is shown: `axtree` (the accessibility tree), `html` (the document), `screenshot`,
    `marks` (a screenshot with the ids of elements), or several."""
    visible_only: bool = False
    """Show of tree and document only what can be seen."""
    show_url: bool = False
    """Say the address in each observation."""
    repeat_goal: bool = False
    """Say the goal in each observation (for context policies that forget the first)."""
    cap: Annotated[int, Ge(1)] = 30
    """Steps until truncation."""
    success_at: float = 1.0
    """Sum of rewards from which an episode that ended is a success."""
    slow_mo_ms: Annotated[int, Ge(0)] | None = None
    """Milliseconds that Playwright waits between two events; `none` is the task's (100 in
    MiniWoB++, 1000 elsewhere)."""
    delay_s: Annotated[float, Ge(0)] = 0.5
    """Seconds between an action and the look at the page, BrowserGym's `pre_observation_delay`."""
    chat_page: bool = False
    """Show the chat in a second browser, as BrowserGym does, where nobody sees it."""
    chromium: Path | None = None
    """The browser; `none` is Playwright's own, or else what AGENTRL_CHROMIUM names, or the first
    on the PATH."""
    train_tasks: Annotated[int, Ge(1)] = 2_000
    """Length of the train split; each task of an id has another seed (splits share none)."""
    dev_tasks: Annotated[int, Ge(1)] = 200
    """Length of the dev split."""
    test_tasks: Annotated[int, Ge(1)] = 400
    """Length of the test split."""

    def __post_init__(self) -> None:
        self._ids = tuple(map(full_id, (self.id,) if isinstance(self.id, str) else self.id))
        self._aspects = (self.observe,) if isinstance(self.observe, str) else self.observe
        if not self._ids or not self._aspects:
            raise ConfigError("browsergym: id and observe need at least one name each")
        self._session: Session | None = None
        self._seen: Mapping[str, Any] | None = None
        self._steps, self._total = 0, 0.0

    def tasks(self, split: Split) -> Sequence[Task]:
        """Seeds of each id, in turns. Raises `MissingExtraError`, `MissingDataError`, and
        `ConfigError` for an id that is not there."""
        for ident in self._ids:
            known(ident)
        lengths = {"train": self.train_tasks, "dev": self.dev_tasks, "test": self.test_tasks}
        return Seeded(self._ids, split, lengths[split], key="id")

    def reset(self, task: Task) -> Observation:
        """Begin the task with its seed, in a browser of its own (BrowserGym starts one each)."""
        self._seen, self._steps, self._total = None, 0, 0.0
        ident = full_id(str(task.data["id"]))
        with self._fatal():
            session = self._ready(ident)
            self._seen = session.reset(task.seed % 2**32)
        return self._observed(is_first=True)

    def _ready(self, ident: str) -> Session:
        kept = self._session
        if kept is not None and kept.ident != ident:
            kept.close()
            kept = None
        if kept is None:
            known(ident)
            take_browser(self.chromium)
            settings: dict[str, Json] = {"pre_observation_delay": self.delay_s}
            if self.task_kwargs:
                settings["task_kwargs"] = self.task_kwargs
            if self.slow_mo_ms is not None:
                settings["slow_mo"] = self.slow_mo_ms
            kept = Session(ident, settings, has_chat=self.chat_page)
        self._session = kept
        return kept

    def step(self, action: Action) -> Step:
        """A click, a text, a key and so on, as typed JSON; `done`, `answer` and `infeasible` end
        the episode. What BrowserGym has no call for, or could not do, costs a step, and is
        reported invalid."""
        session, seen = self._session, self._seen
        if session is None or seen is None:
            raise RuntimeError("browsergym: the episode is over (or never began): call reset")
        self._steps += 1
        reward, is_over, is_cut, complaint = 0.0, False, False, ""
        try:
            act = gui.read(action if isinstance(action, str) else " ".join(action))
            call = self._format(seen).spelt(act)
        except DataError as error:
            complaint = f"not possible: {error}"
        else:
            with self._fatal():
                self._seen, reward, is_over, is_cut = session.step(call)
            if failed := str(self._seen["last_action_error"]):
                complaint = f"not possible: {failed.splitlines()[0]}"
            is_over = is_over or isinstance(act, gui.Done | gui.Answer | gui.Infeasible)
        self._total += reward
        is_cut = not is_over and (is_cut or self._steps >= self.cap)
        observation = self._observed(complaint)
        info: dict[str, object] = {"invalid_action": bool(complaint)}
        if is_over or is_cut:
            self._seen = None
            info["success"] = is_over and self._total >= self.success_at
            info["metrics"] = {"steps": float(self._steps)}
        return Step(
            observation=observation, reward=reward, terminated=is_over, truncated=is_cut, info=info
        )

    def _format(self, seen: Mapping[str, Any]) -> BrowserGymCalls:
        """BrowserGym's spelling: its coordinates are pixels of the screenshot."""
        height, width = seen["screenshot"].shape[:2]
        return BrowserGymCalls(width=width, height=height)

    @contextmanager
    def _fatal(self) -> Iterator[None]:
        """Whatever BrowserGym raises ends its browsers; the next reset begins anew."""
        try:
            yield
        except BaseException:
            self._seen, self._session = None, None
            end_playwright()
            raise

    def close(self) -> None:
        """End the browser; the next reset starts another one."""
        session, self._session, self._seen = self._session, None, None
        if session is not None:
            session.close()
            end_playwright()

    def state_key(self) -> str:
        """Goal, address and the text of the accessibility tree; not the number of steps."""
        if self._seen is None:
            return "over"
        return digest("\n".join((self._seen["goal"], self._seen["url"], self._text("axtree"))))

    def legal_actions(self) -> list[str]:
        """Clicks on what the tree calls a button, a link and the like, and in fields the texts that
        the goal quotes."""
        if self._seen is None:
            raise RuntimeError("browsergym: the episode is over (or never began): call reset")
        tree = self._text("axtree")
        quoted = str(self._seen["goal"]).split('"')[1::2]
        found: list[gui.GuiAction] = [gui.Click(bid) for bid, _ in CLICKED.findall(tree)]
        found += [gui.Type(text, bid) for bid in FILLED.findall(tree) for text in quoted if text]
        return [gui.canonical(action) for action in found] or [gui.canonical(gui.Wait())]

    def _observed(self, complaint: str = "", *, is_first: bool = False) -> Observation:
        """What the aspects ask for; the goal in the beginning."""
        seen = self._seen
        assert seen is not None
        lines = [complaint] if complaint else []
        if is_first or self.repeat_goal:
            lines.append(f"goal {seen['goal']}")
        if self.show_url:
            lines.append(f"url {seen['url']}")
        lines += [self._text(aspect) for aspect in self._aspects if aspect in ("axtree", "html")]
        images = tuple(self._picture(a) for a in self._aspects if a in ("screenshot", "marks"))
        return Observation("\n".join(filter(None, lines)), images=images)

    def _text(self, aspect: str) -> str:
        from browsergym.utils import obs

        assert self._seen is not None
        settings = {
            "extra_properties": self._seen["extra_element_properties"],
            "filter_visible_only": self.visible_only,
        }
        if aspect == "html":
            return str(obs.prune_html(obs.flatten_dom_to_str(self._seen["dom_object"], **settings)))
        skipped = [*obs.IGNORED_AXTREE_ROLES, *REPEATED]
        tree = self._seen["axtree_object"]
        return str(obs.flatten_axtree_to_str(tree, **settings, ignored_roles=skipped))

    def _picture(self, aspect: str) -> Image:
        from browsergym.utils.obs import overlay_som
        from PIL import Image as Picture

        assert self._seen is not None
        pixels: np.ndarray = self._seen["screenshot"]
        if aspect == "marks":
            pixels = overlay_som(pixels, self._seen["extra_element_properties"])
        out = io.BytesIO()
        Picture.fromarray(pixels).save(out, "PNG")
        return Image(out.getvalue())
