"""What all benchmarks share: repetitions that take turns, spreads, machine and versions, JSON.

A speed is a ratio against a named peer in the same run. Arms take turns, round by round, and every
second round runs them backwards, so that a machine that slows down slows all of them; ratios are
taken within a round. Import this module before torch: it sets how threads
wait.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # idle threads must not spin on a shared core
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

from rich.console import Console
from rich.table import Table

PACKAGES = ("agentrl", "torch", "transformers", "trl", "accelerate", "numpy")
CONSOLE = Console(width=120, highlight=False)


def parser(about: str, *, repeats: int = 5, threads: int = 1) -> argparse.ArgumentParser:
    """The options that every benchmark has."""
    made = argparse.ArgumentParser(
        description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    made.add_argument("--full", action="store_true", help="also what takes longer than 8 minutes")
    made.add_argument(
        "--repeats", type=int, default=repeats, metavar="N", help="default %(default)s"
    )
    made.add_argument(
        "--threads", type=int, default=threads, metavar="N", help="default %(default)s"
    )
    made.add_argument("--seed", type=int, default=1, metavar="N", help="of lengths and weights")
    return made


def need(package: str, version: str) -> None:
    """Leave with a clear error unless `package` is installed in a version that begins so."""
    try:
        found = metadata.version(package)
    except metadata.PackageNotFoundError:
        sys.exit(f"the peer is missing: pip install '{package}=={version}.*'")
    if not f"{found}.".startswith(f"{version}."):
        sys.exit(f"the peer is {package} {version}, and {found} is installed")


@dataclass(frozen=True)
class Spread:
    """Median and range of repetitions."""

    median: float
    low: float
    high: float
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of at least one value."""
        return cls(statistics.median(values), min(values), max(values), len(values))

    def text(self, form: str = ".2f", unit: str = "") -> str:
        """`median (low-high)`."""
        return f"{self.median:{form}}{unit} ({self.low:{form}}-{self.high:{form}})"


def interleaved(arms: Mapping[str, Callable[[], float]], repeats: int) -> dict[str, list[float]]:
    """Run every arm `repeats` times, in turns. An arm returns what it measured."""
    found: dict[str, list[float]] = {name: [] for name in arms}
    for turn in range(repeats):
        for name in reversed(list(arms)) if turn % 2 else arms:
            found[name].append(arms[name]())
    return found


def seconds(work: Callable[[], object]) -> float:
    """Wall seconds of one call."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def ratios(of: Sequence[float], to: Sequence[float]) -> Spread:
    """Quotients within each round."""
    return Spread.of([a / b for a, b in zip(of, to, strict=True)])


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which this share lies."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


@dataclass(kw_only=True)
class Report:
    """Collects what was measured; prints it and writes it at the end."""

    bench: str
    arguments: argparse.Namespace
    figures: dict[str, float] = field(default_factory=dict)
    goals: dict[str, str] = field(default_factory=dict)
    cases: list[dict[str, Any]] = field(default_factory=list)
    began: float = field(default_factory=time.perf_counter)
    load_before: tuple[float, float, float] = field(default_factory=os.getloadavg)

    def __post_init__(self) -> None:
        machine, versions = about_machine(), about_versions()
        CONSOLE.print(f"[bold]{self.bench}[/bold]: {' '.join(sys.argv)}")
        CONSOLE.print(", ".join(f"{key} {value}" for key, value in machine.items()))
        CONSOLE.print(", ".join(f"{key} {value}" for key, value in versions.items()))
        CONSOLE.print(f"load {self.load_before[0]:.1f}, {self.arguments.threads} thread(s)")

    def case(self, **measured: object) -> None:
        """One thing that was measured; spreads become JSON objects."""
        self.cases.append(
            {
                key: asdict(value) if isinstance(value, Spread) else value
                for key, value in measured.items()
            }
        )

    def figure(self, name: str, value: float, goal: str = "") -> None:
        """A number that the benchmark exists for, and what it should be."""
        self.figures[name] = value
        if goal:
            self.goals[name] = goal

    def finish(self) -> None:
        """Print the figures and write the JSON."""
        rows = [[k, f"{v:.4g}", self.goals.get(k, "")] for k, v in self.figures.items()]
        show("Figures", ["figure", "measured", "goal"], rows)
        load, spent = os.getloadavg(), time.perf_counter() - self.began
        CONSOLE.print(f"load {self.load_before[0]:.1f} before, {load[0]:.1f} after; {spent:.0f} s")
        path = self.arguments.json
        if path is None:
            return
        settings = {k: v for k, v in vars(self.arguments).items() if k != "json"}
        found = {
            "bench": self.bench,
            "command": shlex.join(["python", *sys.argv]),
            "figures": self.figures,
            "goals": self.goals,
            "cases": self.cases,
            "settings": settings,
            "machine": about_machine(),
            "versions": about_versions(),
            "load": {"before": self.load_before, "after": load},
            "seconds": round(spent, 1),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(found, indent=1) + "\n")
        CONSOLE.print(f"wrote {path}")


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on the terminal."""
    table = Table(title=title, title_justify="left")
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if i else "left")
    for row in rows:
        table.add_row(*row)
    CONSOLE.print(table)


def about_machine() -> dict[str, str | int]:
    """What the numbers were measured on."""
    info = Path("/proc/cpuinfo")
    names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
    return {
        "cpu": names[0].partition(":")[2].strip() if names else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30),
        "system": f"{platform.system()} {platform.machine()}",
    }


def about_versions() -> dict[str, str]:
    """Versions of what was measured."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "absent"
    return found


def resident_mib() -> float:
    """Memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def family_mib() -> float:
    """Resident memory of this process and of all that it started."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = stat.read_text()
        except OSError:
            continue
        parents[int(stat.parent.name)] = int(text.rpartition(")")[2].split()[1])
    family, total = {os.getpid()}, resident_mib()
    while more := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= more
    for pid in family - {os.getpid()}:
        try:
            pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        except OSError:
            continue
        total += pages * os.sysconf("SC_PAGE_SIZE") / 2**20
    return total


def forget_peak() -> float:
    """Start to measure the peak of resident memory anew; what is resident (MiB).

    What was freed goes back to the system first: a peak that fits into it would not be seen.
    """
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return resident_mib()


def peak_mib() -> float:
    """The peak of resident memory since `forget_peak`."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (peak,) = [line.split()[1] for line in lines if line.startswith("VmHWM")]
    return int(peak) / 1024
