"""Weights & Biases: scalars of every step and tables of a few episodes, offline unless asked.

W&B holds up to some seconds of rows in another process and loses them when that is killed, and an
offline run cannot be resumed. So every row goes to `FOLDER/wandb/agentrl.jsonl` first; whenever a
W&B run begins anew (after a resume, after a crash of its process) that journal is told again.
"""

from __future__ import annotations

import importlib.util
import logging
import math
import os
import shutil
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import yaml
from annotated_types import Ge, Gt, MinLen

from agentrl.core.errors import ConfigError, MissingExtraError, TrackError
from agentrl.core.registry import register
from agentrl.core.types import Json
from agentrl.track.appender import Appender
from agentrl.track.jsonl import cut_lines, finite, read_lines, to_line
from agentrl.track.samples import COLUMNS, Cell, is_due, rows, sample
from agentrl.track.trajectories import EpisodeRecord

if TYPE_CHECKING:
    import wandb

WANDB_FOLDER = "wandb"
JOURNAL_FILE = "agentrl.jsonl"
MOST_RESTARTS = 3
_DATA_FOLDER = "WANDB_DATA_DIR"

logger = logging.getLogger(__name__)


@register("track", "wandb")
@dataclass(kw_only=True)
class WeightsAndBiases:
    """A W&B run that keeps its id over resumes.

    Offline, each start writes a folder `wandb/offline-run-*` that holds all steps so far and
    replaces the one before: `wandb sync` sends the run as if it had never stopped. Online, a
    resumed run goes on where the server stands: steps that it has already are not sent again.
    """

    project: Annotated[str, MinLen(1)] = "agentrl"
    """W&B project."""
    entity: str | None = None
    """User or team that owns the project; `none` is the account's default."""
    mode: Literal["offline", "online", "disabled"] = "offline"
    """`offline` writes files for `wandb sync`, `online` sends as the run goes on, `disabled` does
    nothing."""
    episodes_every: Annotated[int, Ge(0)] = 10
    """Steps between tables of sample episodes (0: none); the first step has one."""
    episodes_shown: Annotated[int, Ge(1)] = 4
    """Episodes of a table, successes and failures in turn (1 or more)."""
    system_metrics: bool = True
    """Also measure CPU, memory and GPUs, in a process of W&B's own."""
    timeout_s: Annotated[float, Gt(0)] = 60.0
    """Seconds that W&B may take to log in, to begin and to end (above 0 each)."""

    def __post_init__(self) -> None:
        if self.mode != "disabled" and importlib.util.find_spec("wandb") is None:
            raise MissingExtraError("wandb", "wandb")
        self._folder: Path | None = None
        self._name = self._id = ""
        self._run: wandb.Run | None = None
        self._journal: Appender | None = None
        self._data_folder: str | None = None
        self._failures = self._restarts = 0

    def open(self, folder: Path, name: str, total_steps: int, *, resumed: int = 0) -> None:
        """Begin a run, or go on with the folder's own after step `resumed`.

        Raises:
            ConfigError: `mode=online` without an account that W&B knows.
            TrackError: W&B did not begin within `timeout_s` (a run that resumes goes on without
                it; its rows wait in the journal).
        """
        if self.mode == "disabled":
            return
        self._folder, self._name = folder / WANDB_FOLDER, name
        self._folder.mkdir(parents=True, exist_ok=True)
        self._failures = self._restarts = 0
        self._data_folder = os.environ.get(_DATA_FOLDER)
        os.environ[_DATA_FOLDER] = str(self._folder.resolve() / "data")
        path = self._folder / JOURNAL_FILE
        before = [str(line["id"]) for line in read_lines(path) if "id" in line]
        kept = before[-1:] if resumed else []
        self._id = kept[0] if kept else uuid.uuid4().hex[:8]
        cut_lines(path, lambda line: _is_before(line, resumed) and bool(kept))
        self._journal = Appender(path)
        if not kept:
            self._journal.write(to_line({"step": 0, "id": self._id}))
        for stale in {*before, self._id}:
            self._remove_offline(stale)
        self._log_in()
        try:
            self._begin()
        except Exception as error:
            if not resumed:
                raise TrackError(
                    f"wandb: the run did not begin within {self.timeout_s:g} s ({error}); "
                    "use mode: offline, and `wandb sync` later"
                ) from error
            self._fail(error)

    def episodes(self, step: int, episodes: Sequence[EpisodeRecord]) -> None:
        """A table of a few episodes, where one is due."""
        if episodes and is_due(step, self.episodes_every):
            table = rows(sample(episodes, self.episodes_shown))
            cells = [[finite(c) if isinstance(c, float) else c for c in row] for row in table]
            self._write({"step": step, "episodes": cast("Json", cells)})

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """The step's row, into the journal and to W&B."""
        values: dict[str, Json] = {key: finite(value) for key, value in metrics.items()}
        self._write({"step": step, "metrics": values})

    def evaluation(self, step: int, name: str, numbers: Mapping[str, float]) -> None:
        """Scalars `eval/NAME/...` in the step's row."""
        self.log(step, {f"eval/{name}/{key}": value for key, value in numbers.items()})

    def say(self, text: str) -> None:
        """Lines for people are not shown."""

    def close(self) -> None:
        """End the run; may be called twice.

        Raises:
            TrackError: rows that neither W&B nor the journal's disk took are lost.
        """
        journal, self._journal = self._journal, None
        if journal is None:
            return
        try:
            if self._run is not None:
                self._attempt(self._run.finish)
            if self._run is None or journal.has_failed:  # W&B writes to the same disk, silently
                self._attempt(self._begin_again)
                if self._run is not None:
                    self._attempt(self._run.finish)
            if self._run is None:
                logger.warning(
                    "wandb failed %d times, the last time at the end: %s holds every row, and a "
                    "resumed run sends them",
                    self._failures,
                    JOURNAL_FILE,
                )
        finally:
            self._run = None
            self._restore_environment()
            journal.close()

    def _write(self, line: Mapping[str, Json]) -> None:
        if self.mode == "disabled":
            return
        if self._journal is None:
            raise TrackError("wandb: no run is open: call open() first")
        self._journal.write(to_line(line))
        if self._run is not None:
            self._attempt(lambda: self._tell(line))
        elif self._restarts < MOST_RESTARTS:
            self._restarts += 1
            self._attempt(self._begin_again)

    def _tell(self, line: Mapping[str, Json]) -> None:
        """One line of the journal to W&B, which ends a step's row when the next step begins."""
        import wandb

        assert self._run is not None
        step = cast("int", line["step"])
        if step < self._run.starting_step:
            return
        if "metrics" in line:
            metrics = cast("Mapping[str, float | None]", line["metrics"])
            values = {k: math.nan if value is None else value for k, value in metrics.items()}
            self._run.log(values, step=step)
        if "episodes" in line:
            cells = cast("list[list[Cell]]", line["episodes"])
            table = wandb.Table(columns=list(COLUMNS), data=cells, allow_mixed_types=True)
            self._run.log({"episodes": table}, step=step)

    def _begin(self) -> None:
        """A W&B run under our id, told all that the journal holds."""
        import wandb

        assert self._folder is not None
        self._run = wandb.init(
            project=self.project,
            entity=self.entity,
            id=self._id,
            name=self._name,
            dir=self._folder.parent,
            config=_config(self._folder.parent),
            mode=self.mode,
            resume="allow" if self.mode == "online" else None,
            settings=wandb.Settings(
                console="off",
                silent=True,
                init_timeout=self.timeout_s,
                finish_timeout=self.timeout_s,
                x_disable_stats=not self.system_metrics,
            ),
        )
        for line in read_lines(self._folder / JOURNAL_FILE):
            self._tell(line)

    def _begin_again(self) -> None:
        """Begin after a failure: what is left of the old connection goes first."""
        import wandb

        for _ in range(2):  # the first notices that its process is gone
            with suppress(Exception):
                wandb.teardown()
        self._remove_offline(self._id)
        self._begin()

    def _log_in(self) -> None:
        if self.mode != "online":
            return
        import wandb

        try:
            known = wandb.login(timeout=math.ceil(self.timeout_s))
        except Exception as error:
            raise ConfigError(
                f"wandb: mode is online, and W&B knows no account here ({error}); run `wandb "
                "login`, set WANDB_API_KEY, or use mode: offline"
            ) from error
        if not known:
            raise ConfigError(
                f"wandb: mode is online, and nobody logged in within {self.timeout_s:g} s; run "
                "`wandb login`, set WANDB_API_KEY, or use mode: offline"
            )

    def _attempt(self, action: Callable[[], None]) -> None:
        """Run what talks to W&B, and `_fail` if that fails.

        The classes that W&B raises when its process, its server or its disk fails share no base
        but `Exception`; nothing that it raises may end a training.
        """
        try:
            action()
        except Exception as error:  # noqa: BLE001 - see above
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        """Count it, say so the first time, and let go of the run: the journal has the rows."""
        self._failures += 1
        self._run = None
        if self._failures == 1:
            logger.warning(
                "wandb failed (%s: %s): training goes on, rows wait in %s and are sent when W&B "
                "begins again",
                type(error).__name__,
                error,
                JOURNAL_FILE,
            )

    def _remove_offline(self, run_id: str) -> None:
        """Offline folders of a run that is told again: `wandb sync` must not send both."""
        assert self._folder is not None
        for path in self._folder.glob(f"offline-run-*-{run_id}"):
            shutil.rmtree(path, ignore_errors=True)

    def _restore_environment(self) -> None:
        if self._data_folder is None:
            os.environ.pop(_DATA_FOLDER, None)
        else:
            os.environ[_DATA_FOLDER] = self._data_folder


def _config(run_folder: Path) -> dict[str, Json] | None:
    """The run's resolved settings, if they are written already."""
    path = run_folder / "config.yaml"
    return yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else None


def _is_before(line: Mapping[str, Json], step: int) -> bool:
    at = line.get("step")
    return isinstance(at, int) and at <= step
