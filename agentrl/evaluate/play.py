"""A person in the model's seat: the best debugger of an environment.

Shown is what the model would be shown, and each line typed is what it would have answered.
"""

from __future__ import annotations

import asyncio
import io
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from rich.console import Console
from rich.panel import Panel
from rich.text import Text

from agentrl.core.config import Alone
from agentrl.core.errors import ConfigError
from agentrl.core.protocols import ActionFormat, EnvHandle, Runner, abilities
from agentrl.core.types import Action, Image, Observation, Split, Spot, Step, Task
from agentrl.rollout.answers import as_observation, as_step, spots_of
from agentrl.rollout.runners import runner_for

SHOWN_ACTIONS = 24
"""Legal actions listed under each observation; `?` lists all."""
RING = 7
"""Radius in pixels of what marks a spot."""
THOUSAND = 1_000


@dataclass(frozen=True, kw_only=True)
class Played:
    """How far the person came."""

    turns: int
    total: float
    """Sum of the rewards."""
    success: bool | None
    """What the env said last; None if it said nothing."""
    is_over: bool
    """Whether the episode came to its own end."""


@dataclass(kw_only=True)
class _Game:
    """One episode while it is played. Reading happens outside the event loop, so that Ctrl-C is
    heard at once."""

    loop: asyncio.Runner
    runner: Runner
    handle: EnvHandle
    format: ActionFormat
    read: Callable[[str], str]
    console: Console
    able: frozenset[str] = frozenset()
    turns: int = 0
    total: float = 0.0
    success: bool | None = None
    is_over: bool = False
    legal: list[Action] = field(default_factory=list)
    picture: Image | None = None
    """The last one that was shown."""

    def play(self, task: Task) -> Played:
        self.show(as_observation(self.call("reset", task)), "observation")
        while not self.is_over:
            line = self.next_line()
            if line is None:
                break
            self.answer(line)
        return Played(
            turns=self.turns, total=self.total, success=self.success, is_over=self.is_over
        )

    def next_line(self) -> str | None:
        """What the person typed, without the requests that cost no turn; None to stop."""
        while True:
            try:
                line = self.read("> ").strip()
            except EOFError:
                self.console.print()
                return None
            if line == "quit":
                return None
            if line == "?":
                self.say(
                    ", ".join(spoken(one) for one in self.legal) or "this env does not tell them"
                )
            elif line == "!" and "expert_action" in self.able:
                line = self.format.write(cast(Action, self.call("expert_action")))
                self.say(f"the expert says: {line}")
                return line
            elif line == "!":
                self.say("this env has no expert")
            elif line:
                return line

    def answer(self, line: str) -> None:
        """Take a turn with the reply `line`; a bare legal action is put into the format first."""
        action = self.format.parse(line)
        if action is None and line in self.legal:
            action = self.format.parse(self.format.write(line))
        self.turns += 1
        if action is None:
            self.say(f"no action in it. {self.format.hint()}")
            return
        step = as_step(self.call("step", action))
        if self.picture is not None and (spots := spots_of(step)):
            self.say(f"where that was: {_kept(pointed(self.picture, spots))}")
        self.total += float(step.reward)
        self.note(step)
        self.show(as_observation(step.observation), f"after turn {self.turns}")

    def note(self, step: Step) -> None:
        told = step.info.get("success")
        self.success = self.success if told is None else bool(told)
        self.is_over = step.terminated or step.truncated
        words = [f"reward {step.reward:g}"]
        words += ["invalid action"] if step.info.get("invalid_action") else []
        words += ["terminated"] if step.terminated else []
        words += ["truncated"] if step.truncated else []
        self.say(", ".join(words))

    def show(self, observation: Observation, title: str) -> None:
        messages = observation.messages or ()
        text = "\n".join(f"{m.role}: {m.text}" for m in messages) or observation.text
        images = [*observation.images, *(image for m in messages for image in m.images)]
        self.picture = images[-1] if images else None
        for image in images:
            text += f"\n[picture: {_kept(image)}]"
        self.console.print(Panel(Text(text), title=title, title_align="left"))
        if self.is_over or "legal_actions" not in self.able:
            return
        self.legal = list(cast("Sequence[Action]", self.call("legal_actions")))
        more = f", ... ({len(self.legal)}: ? lists them)" if len(self.legal) > SHOWN_ACTIONS else ""
        self.say(f"actions: {', '.join(spoken(one) for one in self.legal[:SHOWN_ACTIONS])}{more}")
        if not self.turns and self.legal:
            self.say(f"a reply, for example: {self.format.write(self.legal[0])}")

    def say(self, words: str) -> None:
        self.console.print(Text(words, style="dim"))

    def call(self, verb: str, *args: object) -> object:
        return self.loop.run(self.runner.call(self.handle, verb, *args))


def play(
    alone: Alone,
    *,
    split: Split = "train",
    number: int = 0,
    read: Callable[[str], str] = input,
    console: Console | None = None,
) -> Played:
    """Play one episode from the keyboard, until its end, `quit` or the end of the input.

    Args:
        alone: the environment and the action format.
        split: which tasks.
        number: which of them, from 0.
        read: asks for a line; raises `EOFError` at the end of the input.
        console: where to show it; the terminal if None.

    Raises:
        ConfigError: there is no such task.
        EnvError: the env raised, or answered nonsense.
    """
    tasks = alone.env.tasks(split)
    if not 0 <= number < len(tasks):
        raise ConfigError(
            f"--task: the {split} split has tasks 0 to {len(tasks) - 1} (got {number})"
        )
    console = console or Console(highlight=False)
    runner = runner_for(alone.env, "auto")
    with asyncio.Runner() as loop:
        handle = loop.run(runner.open(alone.env))
        game = _Game(
            loop=loop,
            runner=runner,
            handle=handle,
            format=alone.format,
            read=read,
            console=console,
            able=abilities(alone.env),
        )
        try:
            _greet(game, tasks[number])
            played = game.play(tasks[number])
        finally:
            loop.run(runner.close(handle))
    success = {True: "success", False: "no success", None: "success unknown"}[played.success]
    end = "the end" if played.is_over else "left before the end"
    game.say(f"{end}: {success}, return {played.total:g} in {played.turns} turns")
    return played


def _kept(image: Image) -> Path:
    path = Path(tempfile.gettempdir()) / f"agentrl-{image.hash}.png"
    path.write_bytes(image.png)
    return path


def pointed(image: Image, spots: Sequence[Spot]) -> Image:
    """The picture with a ring at each spot; a thin one where a drag let go."""
    from PIL import Image as Picture
    from PIL import ImageDraw

    picture = Picture.open(io.BytesIO(image.png)).convert("RGB")
    draw = ImageDraw.Draw(picture)
    for x, y, is_end in spots:
        at = (x * picture.width / THOUSAND, y * picture.height / THOUSAND)
        draw.circle(at, RING + 1, outline="white", width=2 if is_end else 4)
        draw.circle(at, RING, outline="#d6006c", width=1 if is_end else 3)
    out = io.BytesIO()
    picture.save(out, "PNG")
    return Image(out.getvalue())


def spoken(action: Action) -> str:
    """An action on one line."""
    return action if isinstance(action, str) else " ; ".join(action)


def _greet(game: _Game, task: Task) -> None:
    game.say(f"task {task.id}{f': {task.instruction}' if task.instruction else ''}")
    if game.format.system:
        game.console.print(Panel(Text(game.format.system), title="system", title_align="left"))
    expert = ", ! plays what the expert would do" if "expert_action" in game.able else ""
    game.say(f"? lists the legal actions{expert}, quit ends")
    game.say(f"A model whose reply holds no action is told: {game.format.hint()}")
