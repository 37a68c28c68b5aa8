"""Progress for people: a live bar with the numbers that matter, or plain lines in a log file."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from annotated_types import Gt

from agentrl.core.registry import register
from agentrl.track.doctor import Doctor
from agentrl.track.jsonl import read_metrics
from agentrl.track.trajectories import EpisodeRecord

if TYPE_CHECKING:
    from rich.console import Console as Terminal
    from rich.live import Live
    from rich.progress import Progress, TaskID
    from rich.text import Text


def _quantity(value: float) -> str:
    """Three digits, with k or M for the large."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


SHOWN: Mapping[str, Callable[[float], str]] = {
    "rollout/success": lambda value: f"success {100 * value:.0f} %",
    "rollout/reward": lambda value: f"reward {value:.3f}",
    "loss/entropy": lambda value: f"entropy {value:.3f}",
    "loss/kl": lambda value: f"KL {value:.2g}",
    "rollout/staleness": lambda value: f"stale {value:.2g}",
    "time/tokens_per_s": lambda value: f"{_quantity(value)} tokens/s",
    "time/env_s": lambda value: f"env {value:.2g} s",
    "time/step_s": lambda value: f"{value:.2g} s/step",
}
"""Metric -> how it reads, in the order shown; what a step did not measure is left out."""


@register("track", "console")
@dataclass(kw_only=True)
class Console:
    """A live bar on a terminal; elsewhere one plain line every few steps."""

    every: Annotated[int, Gt(0)] = 5
    """Steps between plain lines where the output is not a terminal (the first and the last step
    always show)."""

    def __post_init__(self) -> None:
        self._terminal: Terminal | None = None
        self._live: Live | None = None
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._numbers: Text | None = None
        self._total = 0
        self._first: tuple[int, float] | None = None
        self._doctor = Doctor()

    def open(self, folder: Path, name: str, total_steps: int, *, resumed: int = 0) -> None:
        """Say what runs and where it writes; begin the bar if this is a terminal."""
        self._total = total_steps
        self._first = None
        self._doctor = Doctor()
        for line in read_metrics(folder)[:resumed]:
            self._doctor.observe(0, line)
        after = f" after step {resumed}" if resumed else ""
        self.say(f"{name}: {total_steps} steps{after}, writing to {folder}")
        if self._screen().is_terminal:
            self._begin_bar(name, resumed)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Show the step."""
        left_s = self._left(step, metrics.get("time/step_s"))
        told = [
            words(metrics[key])
            for key, words in SHOWN.items()
            if key in metrics and math.isfinite(metrics[key])
        ]
        if left_s is not None:
            told.append(f"{_clock(left_s)} left")
        news = self._doctor.observe(step, metrics)
        told += [f"doctor: {', '.join(self._doctor.found)}"] if self._doctor.found else []
        if self._live is not None and self._bar is not None and self._numbers is not None:
            assert self._task is not None
            self._bar.update(self._task, completed=step)
            self._numbers.plain = "  " + "  ".join(told)
            self._live.refresh()
        elif self._is_due(step):
            self.say("  ".join([f"step {step}/{self._total}", *told]))
        for finding in news:
            self.say(finding.line())
        if self._first is None:
            self._first = step, time.monotonic()

    def episodes(self, step: int, episodes: Sequence[EpisodeRecord]) -> None:
        """A bar has no room for episodes."""

    def evaluation(self, step: int, name: str, numbers: Mapping[str, float]) -> None:
        """The run says how an evaluation ended."""

    def say(self, text: str) -> None:
        """One line, above the bar where there is one."""
        self._screen().print(text, markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """End the bar, leaving its last state on the screen; may be called twice."""
        if self._live is not None:
            self._live.stop()
        self._live = self._bar = self._numbers = self._task = None
        self._terminal = None

    def _screen(self) -> Terminal:
        if self._terminal is None:
            from rich.console import Console as Terminal

            self._terminal = Terminal()
        return self._terminal

    def _begin_bar(self, name: str, done: int) -> None:
        from rich.console import Group
        from rich.live import Live
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
        from rich.progress import TimeElapsedColumn as Elapsed
        from rich.text import Text

        columns = (TextColumn("{task.description}", markup=False), BarColumn(bar_width=None))
        self._bar = Progress(*columns, MofNCompleteColumn(), Elapsed(), expand=True)
        self._task = self._bar.add_task(name, total=self._total, completed=done)
        self._numbers = Text("", overflow="ellipsis", no_wrap=True, style="dim")
        # Two redraws a second: the bar must not take time from the training that it shows.
        self._live = Live(
            Group(self._bar, self._numbers), console=self._screen(), refresh_per_second=2
        )
        self._live.start()

    def _left(self, step: int, step_s: float | None) -> float | None:
        """Seconds to the end at this run's own pace, evaluations included."""
        if self._first is not None and step > self._first[0]:
            step_s = (time.monotonic() - self._first[1]) / (step - self._first[0])
        return None if step_s is None else max(0, self._total - step) * step_s

    def _is_due(self, step: int) -> bool:
        return self._first is None or step % self.every == 0 or step >= self._total


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
