"""The tasks of a level: distinct starts, each in the split that its own hash decides."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import cache
from typing import overload

from agentrl.core.errors import ConfigError
from agentrl.core.types import Split, Task
from agentrl.envs.babyai.game import key, make

PATIENCE = 2_000
"""So many seeds in a row without a new start, and a level is taken to have no more."""


class Starts:
    """Walks the seeds of a level once for all splits and keeps each distinct start."""

    def __init__(self, gym_id: str) -> None:
        self._id = gym_id
        self._game = make(gym_id)
        self.walked = 0
        """Seeds looked at so far: 0 to `walked - 1`."""
        self._seen: set[str] = set()
        self._found: dict[Split, list[tuple[int, str, str]]] = {"train": [], "dev": [], "test": []}
        self._last_found = {"train": 0, "dev": 0, "test": 0}
        self._lock = threading.Lock()

    def find(self, split: Split, index: int) -> tuple[int, str, str]:
        """(seed, goal, state key) of a split's start. Raises `ConfigError` if there are too few."""
        with self._lock:
            found = self._found[split]
            while len(found) <= index:
                if self.walked - self._last_found[split] > PATIENCE:
                    raise ConfigError(
                        f"env.level: {self._id} has only {len(found)} distinct starts for the "
                        f"{split} split (seeds 0 to {self.walked - 1} brought no more): set "
                        f"env.{split}_tasks to at most {len(found)}"
                    )
                self._walk()
            return found[index]

    def _walk(self) -> None:
        self._game.reset(seed=self.walked)
        start = key(self._game)
        if start not in self._seen:
            split = split_of(start)
            self._seen.add(start)
            self._found[split].append((self.walked, self._game.mission, start))
            self._last_found[split] = self.walked
        self.walked += 1


@cache
def starts(gym_id: str) -> Starts:
    """One walk per level and process."""
    return Starts(gym_id)


def split_of(start: str) -> Split:
    """Half of all starts are for training, a quarter each for dev and test."""
    quarter = int(start[:8], 16) % 4
    return "dev" if quarter == 0 else "test" if quarter == 1 else "train"


class Tasks(Sequence[Task]):
    """A split's tasks, each found when first asked for."""

    def __init__(self, level: str, split: Split, length: int, walk: Starts) -> None:
        self._level, self._split, self._length, self._walk = level, split, length, walk

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> Task: ...
    @overload
    def __getitem__(self, index: slice) -> list[Task]: ...
    def __getitem__(self, index: int | slice) -> Task | list[Task]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self._length))]
        at = range(self._length)[index]
        seed, goal, start = self._walk.find(self._split, at)
        return Task(
            id=f"{self._level}/{self._split}/{at:06d}",
            seed=seed,
            instruction=goal,
            data={"start": start},
        )
