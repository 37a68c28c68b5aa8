"""Tasks that share no start between splits: a hash of the start itself decides its split.

A small world repeats itself under other seeds, so seeds alone do not keep splits apart. An env that
begins from a seed says what each seed begins with (`Beginning`); `Starts` walks the seeds once for
all splits and keeps each distinct start, and `Tasks` is the lazy sequence that `Env.tasks` returns.
Where nobody here knows what a seed begins with, `Seeded` keeps at least the seeds apart.
"""

from __future__ import annotations

import hashlib
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, overload

from agentrl.core.errors import ConfigError
from agentrl.core.types import Json, Split, Task

PATIENCE = 2_000
"""So many seeds in a row without a new start for a split, and it is taken to have no more."""


class Beginning(NamedTuple):
    """What a seed begins with."""

    start: str
    """Names the initial state: a hex digest (see `digest`), equal in every process."""
    instruction: str = ""
    data: Mapping[str, Json] = {}
    """`Task.data`: JSON values."""


class Starts:
    """Walks the seeds of an env once for all splits and keeps each distinct start."""

    def __init__(
        self, begin: Callable[[int], Beginning | None], *, place: str, what: str, advice: str = ""
    ) -> None:
        """Walk `begin`; a seed with None begins nothing and is passed over.

        `place` (a config key) and `what` (the env with its settings) open the error of `find`,
        further `advice` ends it.
        """
        self._begin = begin
        self._place, self._what, self._advice = place, what, advice
        self.walked = 0
        """Seeds looked at so far: 0 to `walked - 1`."""
        self._seen: set[str] = set()
        self._found: dict[Split, list[tuple[int, Beginning]]] = {"train": [], "dev": [], "test": []}
        self._last_found: dict[Split, int] = {"train": 0, "dev": 0, "test": 0}
        self._lock = threading.Lock()

    def find(self, split: Split, index: int) -> tuple[int, Beginning]:
        """Seed and beginning of a split's start. Raises `ConfigError` if there are too few."""
        with self._lock:
            found = self._found[split]
            while len(found) <= index:
                if self.walked - self._last_found[split] > PATIENCE:
                    raise ConfigError(
                        f"{self._place}: {self._what} has only {len(found)} distinct starts for "
                        f"the {split} split (seeds 0 to {self.walked - 1} brought no more): set "
                        f"env.{split}_tasks to at most {len(found)}{self._advice}"
                    )
                self._walk()
            return found[index]

    def _walk(self) -> None:
        beginning = self._begin(self.walked)
        if beginning is not None and beginning.start not in self._seen:
            split = split_of(beginning.start)
            self._seen.add(beginning.start)
            self._found[split].append((self.walked, beginning))
            self._last_found[split] = self.walked
        self.walked += 1


def digest(text: str) -> str:
    """A start's name from a text that describes it: 32 hex digits."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def split_of(start: str) -> Split:
    """Half of all starts are for training, a quarter each for dev and test."""
    quarter = int(start[:8], 16) % 4
    return "dev" if quarter == 0 else "test" if quarter == 1 else "train"


class Numbered(Sequence[Task], ABC):
    """A split's tasks, each made when it is asked for."""

    def __init__(self, split: Split, length: int) -> None:
        self._split, self._length = split, length

    @abstractmethod
    def made(self, number: int) -> Task:
        """The task with this number (from 0)."""

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> Task: ...
    @overload
    def __getitem__(self, index: slice) -> list[Task]: ...
    def __getitem__(self, index: int | slice) -> Task | list[Task]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self._length))]
        return self.made(range(self._length)[index])


class Tasks(Numbered):
    """A split's tasks, each found when first asked for; ids are `name/split/number`."""

    def __init__(self, name: str, split: Split, length: int, starts: Starts) -> None:
        super().__init__(split, length)
        self._name, self._starts = name, starts

    def made(self, number: int) -> Task:
        """The task that begins with the split's start of this number."""
        seed, beginning = self._starts.find(self._split, number)
        return Task(
            id=f"{self._name}/{self._split}/{number:06d}",
            seed=seed,
            instruction=beginning.instruction,
            data=beginning.data,
        )


SEEDS: Mapping[Split, tuple[int, ...]] = {"train": (0, 1), "dev": (2,), "test": (3,)}
"""Of every four seeds, those of each split."""


class Seeded(Numbered):
    """Tasks of an env whose starts only somebody else knows: names in turns, and seeds that no
    other split has. `data` holds the name as `key`, ids begin with `before`."""

    def __init__(
        self, names: Sequence[str], split: Split, length: int, *, key: str, before: str = ""
    ) -> None:
        super().__init__(split, length)
        self._names, self._key, self._before = names, key, before

    def made(self, number: int) -> Task:
        """The name whose turn it is, with the split's next seed for it."""
        rounds, name = number // len(self._names), self._names[number % len(self._names)]
        mine = SEEDS[self._split]
        seed = 4 * (rounds // len(mine)) + mine[rounds % len(mine)]
        ident = f"{self._before}{name}/{self._split}/{rounds:06d}"
        return Task(id=ident, seed=seed, data={self._key: name})
