"""What tests that inject faults measure: rows of the fault matrix in docs/reliability.md.

A test asks for the fixture `fault_log`, breaks something, and hands in what came of it: `groups`
for episodes that it collected itself, `run` for a whole `train()`, `end` for a process that was
told to stop. Each first checks what the matrix claims: noticed within twice the deadline, all
others scored, the count right. `pytest --record-faults=FILE` runs these tests alone and writes the
rows to FILE; `make reliability` renders them.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from agentrl.core.types import Group
from agentrl.track.jsonl import read_metrics
from agentrl.track.trajectories import read_episodes

Boundary = Literal["env", "engine", "reward", "disk", "interrupt"]
SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class FaultRow:
    """One fault in one place."""

    boundary: Boundary
    fault: str
    """What was done, as in `step hangs`."""
    place: str
    """Where it was done, as in `thread` or `whole run, process`."""
    deadline_s: float
    noticed_s: float
    counted: str
    """What was counted."""
    then: str
    """How the rest went on."""
    test: str


@dataclass(kw_only=True)
class FaultLog:
    """The rows of a session; `test` is the one that runs now."""

    rows: list[FaultRow] = field(default_factory=list)
    test: str = ""

    def row(
        self,
        boundary: Boundary,
        fault: str,
        place: str,
        *,
        deadline_s: float,
        noticed_s: float,
        counted: str,
        then: str,
    ) -> None:
        """Keep a row whose counts the test has checked itself."""
        assert noticed_s < 2 * deadline_s, f"{fault}: noticed after {noticed_s:.2f} s"
        self.rows.append(
            FaultRow(
                boundary=boundary,
                fault=fault,
                place=place,
                deadline_s=deadline_s,
                noticed_s=round(noticed_s, 2),
                counted=counted,
                then=then,
                test=self.test,
            )
        )

    def groups(
        self,
        boundary: Boundary,
        fault: str,
        place: str,
        *,
        deadline_s: float,
        groups: Sequence[Group],
        failed: int = 0,
        unscored: int = 0,
        noticed_s: float | None = None,
    ) -> None:
        """Keep a row of collected groups, of which so many episodes failed or went unscored.

        It was noticed when the broken episode ended, unless `noticed_s` says when.
        """
        episodes = [t for group in groups for t in group.trajectories]
        broken = [t for t in episodes if t.failure is not None and t.failure.where == boundary]
        if noticed_s is None:
            noticed_s = max((t.seconds for t in broken), default=0.0)
        assert len(broken) == sum(t.stop.is_failure for t in episodes) == failed
        assert sum(not t.is_scored for t in episodes) == failed + unscored
        self.row(
            boundary,
            fault,
            place,
            deadline_s=deadline_s,
            noticed_s=noticed_s,
            counted=_counted(boundary, failed, unscored),
            then=_others(len(episodes) - failed - unscored) + " scored",
        )

    def run(
        self,
        boundary: Boundary,
        fault: str,
        place: str,
        *,
        deadline_s: float,
        folder: Path,
        steps: int,
        per_step: int,
        failed: int = 0,
        unscored: int = 0,
        noticed_s: float | None = None,
    ) -> None:
        """Keep a row of a whole run, by what it wrote: metrics and episodes agree on the count.

        It was noticed when the broken episode ended, unless `noticed_s` says when.
        """
        metrics = read_metrics(folder)
        assert [line["step"] for line in metrics] == list(range(1, steps + 1))
        told = dict.fromkeys(("env", "engine", "reward"), 0.0)
        for line in metrics:
            for where in told:
                told[where] += float(str(line[f"episodes/failed_{where}"]))
        assert told == {**dict.fromkeys(told, 0.0), boundary: float(failed)}
        assert sum(float(str(line["episodes/unscored"])) for line in metrics) == unscored
        files = sorted((folder / "trajectories").glob("train-*.parquet"))
        episodes = [episode for path in files for episode in read_episodes(path)]
        assert len(episodes) == steps * per_step
        broken = [e for e in episodes if e.failure is not None]
        assert [str(e.failure).split(":")[0] for e in broken] == [boundary] * failed
        assert sum(e.reward is None for e in episodes) == failed + unscored
        collected = max(float(str(line["time/rollout_s"])) for line in metrics)
        is_whole = boundary == "reward"  # which is asked when the episode is over
        if noticed_s is None:
            noticed_s = collected if is_whole else max((e.seconds for e in broken), default=0.0)
        self.row(
            boundary,
            fault,
            f"whole run, {place}",
            deadline_s=deadline_s,
            noticed_s=noticed_s,
            counted=_counted(boundary, failed, unscored),
            then=f"{steps} steps trained on {_others(len(episodes) - failed - unscored)}",
        )

    def write(self, path: Path) -> None:
        """All rows as JSON, in an order of their own."""
        rows = sorted(self.rows, key=lambda row: (row.boundary, row.place, row.fault))
        machine = f"{os.cpu_count()} cores, Python {platform.python_version()}, {platform.system()}"
        told = {"schema": SCHEMA, "machine": machine, "rows": [asdict(row) for row in rows]}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


def _counted(boundary: str, failed: int, unscored: int) -> str:
    parts = [f"{failed} {boundary} failure{'s' * (failed > 1)}"] if failed else []
    parts += [f"{unscored} unscored"] if unscored else []
    return ", ".join(parts) or "no failure"


def _others(count: int) -> str:
    return f"{count} other episode{'s' * (count != 1)}"
