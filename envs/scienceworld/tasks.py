"""The thirty tasks of ScienceWorld and how many variations each split has of them.

A task's variations are numbered, those of the train split first, then dev, then test, as the
package has it (`tests/envs/test_scienceworld.py` asks it).
"""

from __future__ import annotations

from collections.abc import Sequence

from agentrl.core.errors import ConfigError, did_you_mean
from agentrl.core.types import Split

ALL = "all"
VARIATIONS: dict[str, tuple[int, int, int]] = {
    "boil": (14, 7, 9),
    "change-the-state-of-matter-of": (14, 7, 9),
    "chemistry-mix": (16, 8, 8),
    "chemistry-mix-paint-secondary-color": (18, 9, 9),
    "chemistry-mix-paint-tertiary-color": (18, 9, 9),
    "find-animal": (150, 75, 75),
    "find-living-thing": (150, 75, 75),
    "find-non-living-thing": (150, 75, 75),
    "find-plant": (150, 75, 75),
    "freeze": (14, 7, 9),
    "grow-fruit": (62, 31, 33),
    "grow-plant": (62, 31, 33),
    "identify-life-stages-1": (6, 3, 5),
    "identify-life-stages-2": (4, 2, 4),
    "inclined-plane-determine-angle": (84, 42, 42),
    "inclined-plane-friction-named-surfaces": (692, 346, 348),
    "inclined-plane-friction-unnamed-surfaces": (80, 40, 42),
    "lifespan-longest-lived": (62, 31, 32),
    "lifespan-longest-lived-then-shortest-lived": (62, 31, 32),
    "lifespan-shortest-lived": (62, 31, 32),
    "measure-melting-point-known-substance": (218, 109, 109),
    "measure-melting-point-unknown-substance": (150, 75, 75),
    "melt": (14, 7, 9),
    "mendelian-genetics-known-plant": (60, 30, 30),
    "mendelian-genetics-unknown-plant": (240, 120, 120),
    "power-component": (10, 5, 5),
    "power-component-renewable-vs-nonrenewable-energy": (10, 5, 5),
    "test-conductivity": (450, 225, 225),
    "test-conductivity-of-unknown-substances": (300, 150, 150),
    "use-thermometer": (270, 135, 135),
}
"""Task -> variations for training, dev and test."""


def chosen(task: str) -> Sequence[str]:
    """The tasks that a name stands for. Raises `ConfigError` for an unknown one."""
    if task != ALL and task not in VARIATIONS:
        raise ConfigError(
            f"env.task: ScienceWorld has no task {task!r}{did_you_mean(task, VARIATIONS)} "
            f"(known: {ALL}, {', '.join(VARIATIONS)})"
        )
    return list(VARIATIONS) if task == ALL else [task]


def variations(task: str, split: Split) -> range:
    """The numbers of a task's variations in a split."""
    train, dev, test = VARIATIONS[task]
    ends = {"train": (0, train), "dev": (train, train + dev)}
    first, last = ends.get(split, (train + dev, train + dev + test))
    return range(first, last)
