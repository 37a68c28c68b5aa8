"""Suites: fixed lists of environments and tasks on which a checkpoint is measured, cached by task.

    agentrl eval CHECKPOINT --suite text-small

A suite is a YAML file (`agentrl/evaluate/suites/`, or one's own). Each of its entries is played
greedily and sampled, beside the random floor and the expert's ceiling. What was played is kept in
the output folder by (weights, entry, seat, task), so that a suite that was killed goes on where it
was, and the same weights are not played twice. An entry whose package or data is not installed
stands in the table as not played, with how to get it.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal, cast

from annotated_types import Ge, MinLen

from agentrl.core import protocols, registry
from agentrl.core.config import Config, load_config
from agentrl.core.errors import (
    ConfigError,
    MissingDataError,
    MissingExtraError,
    did_you_mean,
)
from agentrl.core.loading import load, to_yaml
from agentrl.core.protocols import Agent, ToolFormat, abilities
from agentrl.core.shapes import Slot
from agentrl.core.types import Group, Json, Stop, Task
from agentrl.evaluate.checkpoints import resolve_checkpoint
from agentrl.evaluate.runner import Stage, build_stage, enough_tasks, roomy
from agentrl.evaluate.statistics import wilson
from agentrl.rollout.strategies.flat import Flat
from agentrl.track.jsonl import append_line, read_lines, write_lines

SUITES = Path(__file__).parent / "suites"
SEATS = ("random", "expert", "greedy", "sampled")
"""Who plays an entry: the floor, the ceiling, and the checkpoint in two ways."""
OF_WEIGHTS = ("greedy", "sampled")
AT_ONCE = 64
"""Tasks in flight."""

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One environment of a suite."""

    name: Annotated[str, MinLen(1)]
    """How tables call it; unique in its suite."""
    env: Annotated[protocols.Env, Slot("env")]
    """The environment and its settings."""
    split: Literal["dev", "test"] = "test"
    """Which tasks; those of `train` measure nothing."""
    tasks: Annotated[int, Ge(1)] = 100
    """How many of them (1 or more)."""
    samples: Annotated[int, Ge(1)] = 1
    """Sampled episodes of each task (1 or more); greedy ones are played once."""
    max_turns: Annotated[int, Ge(1)] = 16
    """Turns after which an episode is cut off (1 or more)."""
    max_tokens: Annotated[int, Ge(1)] = 32
    """Most tokens of one reply (1 or more)."""


@dataclass(frozen=True, kw_only=True)
class Suite:
    """What is measured together."""

    about: str = ""
    """One line for the table."""
    entries: tuple[Entry, ...]
    """The environments."""

    def __post_init__(self) -> None:
        names = [entry.name for entry in self.entries]
        twice = sorted({name for name in names if names.count(name) > 1})
        if not names or twice:
            raise ConfigError(f"entries: expected names, each once (twice: {', '.join(twice)})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """One episode of a suite; a failed one has no success."""

    task: str
    sample: int
    success: bool | None
    reward: float
    turns: int
    tokens: int
    stop: str


@dataclass(frozen=True, kw_only=True)
class Row:
    """One seat on one entry, or an entry that cannot be played here."""

    entry: str
    seat: str
    """One of `SEATS`; empty for what cannot be played."""
    episodes: tuple[Played, ...]
    missing: str = ""
    """What is not installed, and how to get it."""

    @property
    def counted(self) -> list[Played]:
        """The episodes that did not fail."""
        return [one for one in self.episodes if one.success is not None]

    @property
    def cramped(self) -> int:
        """Episodes that ended because the model's context had no room for the next prompt."""
        return sum(one.stop == Stop.MAX_TOKENS.value for one in self.episodes)

    @property
    def success(self) -> float:
        """Share of the episodes that did not fail; NaN without any."""
        return _mean([float(bool(one.success)) for one in self.counted])

    @property
    def interval(self) -> tuple[float, float]:
        """95 % Wilson interval."""
        return wilson(sum(bool(one.success) for one in self.counted), len(self.counted))

    def markdown(self) -> str:
        """A line of the table."""
        if self.missing:
            told = " ".join(self.missing.replace("|", "\\|").split())
            return f"| {self.entry} | not played | {told} |{'  |' * 7}"
        low, high = self.interval
        failed = len(self.episodes) - len(self.counted)
        cells = (
            self.entry,
            self.seat,
            f"{self.success:.3f}",
            f"{low:.3f}-{high:.3f}",
            str(len(self.counted)),
            f"{_mean([one.reward for one in self.counted]):.3f}",
            f"{_mean([one.turns for one in self.counted]):.1f}",
            f"{_mean([one.tokens for one in self.counted]):.1f}",
            str(failed),
            str(self.cramped),
        )
        return f"| {' | '.join(cells)} |"

    def to_json(self) -> dict[str, Json]:
        """What the table says, as data."""
        if self.missing:
            return {"entry": self.entry, "missing": self.missing}
        low, high = self.interval
        return {
            "entry": self.entry,
            "seat": self.seat,
            "success": None if math.isnan(self.success) else self.success,
            "low": low,
            "high": high,
            "episodes": len(self.counted),
            "failed": len(self.episodes) - len(self.counted),
            "no_room": self.cramped,
        }


HEADER = (
    "| entry | seat | success | 95 % interval | episodes | reward | turns | tokens | failed "
    "| no room |\n"
    "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"
)


def load_suite(name: str) -> Suite:
    """A suite by its name or by the path of its file.

    Raises:
        ConfigError: there is none, or it is not well-formed.
    """
    known = {path.stem: path for path in SUITES.glob("*.yaml")}
    path = known.get(name, Path(name))
    if not path.is_file():
        near = did_you_mean(name, known)
        raise ConfigError(
            f"--suite: no suite is called {name!r}{near} (known: {', '.join(sorted(known))}; or "
            "the path of a YAML file)"
        )
    return load(Suite, path)


def play_suite(
    checkpoint: Path,
    suite: Suite,
    *,
    out: Path,
    overrides: Sequence[str] = (),
    seats: Sequence[str] = SEATS,
    say: Say = lambda text: None,
) -> list[Row]:
    """Every entry in every seat that it has; what `out` holds already is not played again.

    Returns:
        The rows in the order of the entries; one for an entry whose package or data is missing.

    Raises:
        ConfigError: there is no checkpoint, an entry has too few tasks, or none can be played.
    """
    folder = resolve_checkpoint(checkpoint).resolve()
    run = folder.parent.parent if folder.parent.name == "checkpoints" else folder
    written = run / "config.yaml"
    base = load_config(written if written.exists() else None, overrides)
    missing = {entry.name: _missing(entry) for entry in suite.entries}
    if all(missing.values()):
        raise ConfigError("\n".join(f"{name}: {what}" for name, what in missing.items()))
    is_asked = any(one.startswith(("actions=", "actions.")) for one in overrides)
    shelf = Shelf(folder=out, weights=digest_of(folder), overrides=tuple(overrides))
    rows = []
    for entry in suite.entries:
        if missing[entry.name]:
            rows.append(Row(entry=entry.name, seat="", episodes=(), missing=missing[entry.name]))
            say(f"{entry.name}: not played: {missing[entry.name]}")
            continue
        config = _config(base, folder, entry, keeps_actions=is_asked)
        rows += asyncio.run(_play_entry(config, entry, shelf, seats, say))
    return rows


def _missing(entry: Entry) -> str:
    """What has to be installed before the entry can be played; empty if nothing has to."""
    try:
        enough_tasks(entry.env, entry.split, entry.tasks)[0]  # lazy tasks miss nothing before
    except (MissingDataError, MissingExtraError) as error:
        return str(error)
    return ""


def _config(base: Config, folder: Path, entry: Entry, *, keeps_actions: bool) -> Config:
    """The run's config for this entry, with the env's own action format; where that is one of tool
    calls, another that was asked for is kept."""
    calls_tools = isinstance(registry.find("actions", entry.env.actions)(), ToolFormat)
    actions = base.actions if keeps_actions and calls_tools else None
    rollout = replace(
        base.rollout,
        mode="sync",
        max_staleness=0,
        replay=None,
        max_turns=entry.max_turns,
        runner="auto",
    )
    return replace(
        base,
        model=str(folder),
        lora=None,
        env=entry.env,
        actions=actions,
        strategy=Flat(),
        rollout=rollout,
        sampling=replace(base.sampling, max_tokens=entry.max_tokens),
        thinking=None,
    )


def digest_of(folder: Path) -> str:
    """Names a checkpoint by its weights: the first 16 hex digits of their SHA-256."""
    total = hashlib.sha256()
    for path in sorted([*folder.glob("*.safetensors"), folder / "config.json"]):
        with path.open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()[:16]


async def _play_entry(
    config: Config, entry: Entry, shelf: Shelf, seats: Sequence[str], say: Say
) -> list[Row]:
    able = abilities(config.env)
    has = {"random": "legal_actions" in able, "expert": "expert_action" in able}
    rows, opened = [], list[Stage]()
    try:
        for seat in [seat for seat in seats if has.get(seat, True)]:
            samples = entry.samples if seat == "sampled" else 1
            kept = shelf.open(entry, seat)
            left = kept.missing(config.env.tasks(entry.split), entry.tasks, samples)
            if left:
                if not opened:
                    opened.append(await build_stage(config))
                    await config.engine.start(opened[0].policy)
                await _play(opened[0], entry, seat, samples, left, kept)
            rows.append(Row(entry=entry.name, seat=seat, episodes=tuple(kept.episodes())))
            low, high = rows[-1].interval
            say(f"{entry.name}, {seat}: {rows[-1].success:.3f} ({low:.3f}-{high:.3f})")
            if rows[-1].cramped:
                say(
                    f"{entry.name}, {seat}: {rows[-1].cramped} of {len(rows[-1].episodes)} "
                    "episodes ended where the model's context had no room for the next prompt"
                )
    finally:
        for stage in opened:
            await stage.worker.close()
            await config.engine.close()
    return rows


async def _play(
    stage: Stage,
    entry: Entry,
    seat: str,
    samples: int,
    left: Sequence[tuple[int, Task]],
    kept: Kept,
) -> None:
    worker = stage.worker if seat in OF_WEIGHTS else roomy(stage).worker
    play = worker.one_by_one(
        agent=_agent(stage, seat), group_size=samples, label=f"suite/{entry.name}/{seat}"
    )
    turns = asyncio.Semaphore(max(1, AT_ONCE // samples))

    async def one(number: int, task: Task) -> None:
        async with turns:
            kept.add(await play(task, number))

    try:
        async with asyncio.TaskGroup() as group:
            for number, task in left:
                group.create_task(one(number, task))
    finally:
        if worker is not stage.worker:
            await worker.close()


def _agent(stage: Stage, seat: str) -> Agent:
    if seat == "random":
        return stage.random()
    if seat == "expert":
        return stage.expert()
    agent = stage.engine_agent(in_step=False)
    return replace(agent, greedy=True) if seat == "greedy" else agent


@dataclass(frozen=True, kw_only=True)
class Shelf:
    """Where the episodes of a suite are kept."""

    folder: Path
    weights: str
    """Names the checkpoint; floors and ceilings are no one's."""
    overrides: tuple[str, ...] = ()

    def open(self, entry: Entry, seat: str) -> Kept:
        """What was kept of this entry as it is now; another entry of the name, or one played under
        other overrides, has another file."""
        text = "\n".join([to_yaml(entry), *self.overrides])
        settings = hashlib.sha256(text.encode()).hexdigest()[:8]
        mark = self.weights if seat in OF_WEIGHTS else "any"
        path = self.folder / "episodes" / mark / f"{entry.name}.{settings}.{seat}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = read_lines(path)
        write_lines(path, lines)  # without the line that a kill cut off
        return Kept(path=path, lines=list(lines))


@dataclass(kw_only=True)
class Kept:
    """The episodes of one seat on one entry, in a file to which each is added when it is over."""

    path: Path
    lines: list[Mapping[str, Json]]

    def missing(self, tasks: Sequence[Task], count: int, samples: int) -> list[tuple[int, Task]]:
        """Number and task of what is still to be played."""
        counts: dict[str, int] = {}
        for line in self.lines:
            counts[str(line["task"])] = counts.get(str(line["task"]), 0) + 1
        found = [(number, tasks[number]) for number in range(count)]
        return [(number, task) for number, task in found if counts.get(task.id, 0) < samples]

    def add(self, group: Group) -> None:
        """Keep a task's episodes."""
        for sample, one in enumerate(group.trajectories):
            line: dict[str, Json] = {
                "task": group.task.id,
                "sample": sample,
                "success": None if one.failure else bool(one.success),
                "reward": one.env_return,
                "turns": len(one.turns),
                "tokens": one.n_tokens,
                "stop": one.stop.value,
            }
            append_line(self.path, line)
            self.lines.append(line)

    def episodes(self) -> Iterator[Played]:
        """In the order of tasks and samples, each once."""
        once = {(str(line["task"]), int(cast(int, line["sample"]))): line for line in self.lines}
        for key in sorted(once):
            yield Played(**once[key])  # type: ignore[arg-type]


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan
