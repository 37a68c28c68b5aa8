"""What the archive of explored states costs: cells a second, and memory for a million of them.

    python scripts/bench/archive.py --json F        # a million cells, in a process of its own
    python scripts/bench/archive.py --cells 50000   # a quick look

Graphs of a thousand cells each (a walk with a branch at every step, so two edges a cell) are merged
into one file, task after task, as exploring does; then every tenth is loaded again. Memory is the
process's peak over what it held before the first merge. Costs are absolute: no other framework
keeps an archive.
"""

import argparse
import json
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path
from random import Random

from agentrl.core.graph import StateGraph
from agentrl.explore.archive import Archive

CELLS = 1_000
"""Cells of one task's graph."""
ROUNDS = 5
"""Parts of the whole that are timed apart, for the spread."""


def graph(rng: Random) -> StateGraph:
    """A task's cells, with keys as long as a hash."""
    made = StateGraph(f"{rng.getrandbits(128):032x}")
    cells = [made.start]
    while len(made) < CELLS:
        source = cells[-1] if rng.random() < 0.9 else rng.choice(cells)
        action = rng.choice(("left", "right", "forward", "pickup", "toggle"))
        added = made.add(source, action, f"{rng.getrandbits(128):032x}")
        made.add(source, "drop", rng.choice(cells).key)
        cells.append(added.cell)
    return made


def peak_mib() -> float:
    """Most memory that this process held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(count: int, path: Path) -> dict[str, float | list[float]]:
    """Merge, load, and look at the memory."""
    rng, number, rates = Random(1), 0, []
    graph(rng)
    before = peak_mib()
    with Archive(path) as archive:
        for _ in range(ROUNDS):
            made, spent = 0, 0.0
            while made < count // ROUNDS:
                one = graph(rng)
                began = time.perf_counter()
                archive.merge(f"task/{number}", one)
                spent += time.perf_counter() - began
                number, made = number + 1, made + len(one)
            rates.append(made / spent)
        began = time.perf_counter()
        loaded = [archive.load(f"task/{n}") for n in range(0, number, 10)]
        seconds = time.perf_counter() - began
        cells = archive.counts()["cells"]
        seen = sum(len(one) for one in loaded if one is not None)
    return {
        "cells": cells,
        "inserts_per_s": statistics.median(rates),
        "inserts_per_s_rounds": rates,
        "loads_per_s": seen / seconds,
        "mib_per_million": (peak_mib() - before) * 1e6 / cells,
        "file_mib_per_million": path.stat().st_size / 2**20 * 1e6 / cells,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cells", type=int, default=1_000_000)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(args.cells, Path(folder) / "archive.sqlite")
    found["python"] = sys.version.split()[0]
    for name, value in found.items():
        print(f"{name:24} {value}")
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
