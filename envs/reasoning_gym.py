"""Reasoning Gym's datasets as tasks of one turn: a question, an answer, the package's own score.

    State the final answer to the following arithmetic problem: 47 + 52 =
    > 99   (reward 1)

Any of its generators but two (`UNUSABLE`) may be named (`pip install 'agentrl[reasoning]'`, version
0.1.25; Stojanovski et al. 2025, arXiv 2505.24760). A task's seed is an index of an endless dataset,
and the question itself decides the split, so that splits share neither seeds nor questions.

Some of the package's scorers evaluate the answer as Python or by sympy, which does. They get only
answers that are literals, arithmetic or algebra (`is_safe`); any other is worth nothing.
"""

from __future__ import annotations

import ast
import importlib
import json
import math
import random
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, NamedTuple, Protocol, cast

from annotated_types import Ge

from agentrl.core.errors import ConfigError, MissingExtraError, did_you_mean
from agentrl.core.one_state import OneState
from agentrl.core.protocols import RunsIn
from agentrl.core.registry import register
from agentrl.core.starts import Beginning, Starts, Tasks, digest
from agentrl.core.types import Action, Json, Split, Step, Task

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

NO_GOLD = frozenset({"boxnet", "graph_color", "propositional_logic", "rubiks_cube", "rush_hour"})
"""Datasets that score answers and know none themselves: they have no expert."""
LITERALS = frozenset({"binary_matrix", "n_queens", "spiral_matrix", "string_insertion"})
ARITHMETIC = frozenset({"countdown", "puzzle24"})
ALGEBRA = frozenset({"intermediate_integration", "polynomial_multiplication", "simple_integration"})
"""Datasets whose scorers evaluate what they are given: as Python, or as sympy does."""
UNUSABLE = {
    "composite": "it is made of others: mix their environments instead",
    "game_of_life_halting": "its scorer takes any text for right",
}
BLOCK = 2_000
"""Indices that one dataset object serves: some make all of their questions when they are made."""
LONGEST_EVALUATED = 500
"""Characters of an answer that is evaluated."""

WORDS = re.compile(r"(?:[\w\s#]|(?<=[0-9])\.(?=[0-9]))*", re.ASCII)
LIST = re.compile(r"(?:[\w\s.,'\"#\[\]]|-(?=[0-9]))*", re.ASCII)
SUM = re.compile(r"(?:[-+/() .0-9]|\*(?!\*))*")
TERM = re.compile(r"([A-Za-z]+)|[0-9]+(?:\.[0-9]+)?|\*\*(?= *(?:\(-?)?[0-9a-z])|[-+*/() ]")
FUNCTIONS = {
    *("sin", "cos", "tan", "sec", "csc", "cot", "asin", "acos", "atan", "sinh", "cosh", "tanh"),
    *("exp", "log", "ln", "sqrt", "pi", "Abs"),
}

Entry = Mapping[str, object]


class Generator(Protocol):
    """A dataset of the package."""

    def __getitem__(self, index: int) -> Entry: ...

    def score_answer(self, answer: str, entry: Entry) -> float:
        """0 to 1."""
        ...


class Source(NamedTuple):
    """What decides the questions."""

    dataset: str
    settings: str
    """The config's fields as JSON."""
    levels: int


class Saved(NamedTuple):
    """A snapshot."""

    seed: int
    is_over: bool


@register("env", "reasoning_gym")
@dataclass(kw_only=True)
class ReasoningGym(OneState[Saved]):
    """Questions of Reasoning Gym's generators, scored by the package itself, in one turn."""

    runs_in: ClassVar[RunsIn] = "thread"
    extra: ClassVar[str] = "reasoning"
    licence: ClassVar[str] = "Apache-2.0 (reasoning-gym)"
    cite: ClassVar[str] = "Stojanovski et al. 2025 (Reasoning Gym), arXiv 2505.24760"

    dataset: str = "chain_sum"
    """A dataset of the package, such as `chain_sum`, `countdown`, `zebra_puzzles`."""
    config: dict[str, Json] = field(default_factory=dict)
    """Fields of the dataset's own config, such as `{min_terms: 2, max_terms: 3}`."""
    levels: Annotated[int, Ge(0)] = 0
    """How many difficulty levels of the package's own curriculum the tasks are drawn from, easiest
    first (`task.data["level"]` counts from 0; `config` wins). 0: `config` alone."""
    reward: Literal["score", "success"] = "score"
    """The package's `score`, which may give a little for a wrong answer, or 1 for `success`."""
    success_at: Annotated[float, Ge(0)] = 1.0
    """Score from which an answer counts as a success."""
    longest: Annotated[int, Ge(1)] = 20_000
    """Characters of an answer; a longer one is worth nothing."""
    train_tasks: Annotated[int, Ge(1)] = 2_000
    """Length of the train split; each task is another question."""
    dev_tasks: Annotated[int, Ge(1)] = 200
    """Length of the dev split."""
    test_tasks: Annotated[int, Ge(1)] = 400
    """Length of the test split."""

    def __post_init__(self) -> None:
        reserved = {"seed", "size"} & set(self.config)
        if reserved:
            raise ConfigError(
                f"env.config: {' and '.join(sorted(reserved))} must be left out: tasks bring their "
                "own; use run.seed and env.train_tasks"
            )
        settings = json.dumps(self.config, sort_keys=True)
        self._source = Source(self.dataset, settings, self.levels)
        self._now = Saved(0, True)
        if self.dataset in NO_GOLD:
            # Having the method is having the ability.
            self.__dict__["expert_action"] = None
        if self.dataset in ALGEBRA:
            # Simplifying can take forever, and only a process can be killed.
            self.__dict__["runs_in"] = "process"

    def tasks(self, split: Split) -> Sequence[Task]:
        """Distinct questions; a hash of the question decides its split (2:1:1).

        Raises:
            MissingExtraError: reasoning-gym is not installed.
            ConfigError: it has no such dataset, or refuses the config.
        """
        lengths = {"train": self.train_tasks, "dev": self.dev_tasks, "test": self.test_tasks}
        generator(self._source, max(0, self.levels - 1))
        name = f"reasoning_gym/{self.dataset}"
        return Tasks(name, split, lengths[split], starts(self._source))

    def reset(self, task: Task) -> str:
        """Ask the question of `task.seed`."""
        self._now = Saved(task.seed, False)
        return self._question

    def step(self, action: Action) -> Step:
        """The answer, which ends the episode."""
        self._now = self._playing()._replace(is_over=True)
        score = self._score(action) if isinstance(action, str) else None
        is_right = score is not None and score >= self.success_at - 1e-9
        info: dict[str, object] = {"success": is_right, "metrics": {"score": score or 0.0}}
        if score is None:
            info["invalid_action"] = True
        reward = (score or 0.0) if self.reward == "score" else float(is_right)
        return Step(observation=self._question, reward=reward, terminated=True, info=info)

    def state_key(self) -> str:
        """A hash of the question."""
        return digest(self._question)

    def expert_action(self) -> str:
        """The package's own answer."""
        return str(entry(self._source, self._now.seed)["answer"])

    @property
    def _question(self) -> str:
        return str(entry(self._source, self._now.seed)["question"])

    def _score(self, answer: str) -> float | None:
        """The package's score, 0 to 1; None for what it cannot be asked."""
        asked = entry(self._source, self._now.seed)
        if len(answer) > self.longest or not is_safe(self.dataset, answer, asked["answer"]):
            return None
        try:
            score = float(generator(self._source, self._now.seed).score_answer(answer, asked))
        except Exception:  # noqa: BLE001 - a scorer that chokes on an answer says that it is none
            return None
        return min(max(score, 0.0), 1.0) if math.isfinite(score) else None


def is_safe(dataset: str, answer: str, gold: object) -> bool:
    """Whether an answer may be handed to the dataset's scorer.

    Scorers that evaluate it get the gold answer, and of others Python literals or words without
    any operator (matrices, boards), numbers with `+-*/` (countdown), or algebra of single letters
    and known functions (integrals).
    """
    if dataset not in LITERALS | ARITHMETIC | ALGEBRA or answer == gold:
        return True
    if len(answer) > LONGEST_EVALUATED:
        return False
    if dataset in LITERALS:
        return WORDS.fullmatch(answer) is not None or _is_literal(answer)
    if dataset in ARITHMETIC:
        return SUM.fullmatch(answer) is not None
    at = 0
    while at < len(answer):
        read = TERM.match(answer, at)
        if read is None or (read[1] and len(read[1]) > 1 and read[1] not in FUNCTIONS):
            return False
        at = read.end()
    return True


def _is_literal(text: str) -> bool:
    """Whether it is a list of strings or numbers, or one of them."""
    if LIST.fullmatch(text) is None:
        return False
    try:
        ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return False
    return True


# --- the package ----------------------------------------------------------------------------------

_LOCK = threading.RLock()
"""Generators draw from global random numbers here and there, so one works at a time."""


@contextmanager
def _own_randomness(seed: int) -> Iterator[None]:
    """Global generators are seeded within and are as they were afterwards."""
    numpy = importlib.import_module("numpy")
    with _LOCK:
        before, arrays = random.getstate(), numpy.random.get_state()
        random.seed(seed)
        numpy.random.seed(seed)
        try:
            yield
        finally:
            random.setstate(before)
            numpy.random.set_state(arrays)


def generator(source: Source, seed: int) -> Generator:
    """The dataset object that has the index `seed`."""
    level = seed % source.levels if source.levels else None
    with _own_randomness(seed // BLOCK):
        return _generator(source.dataset, source.settings, level, seed // BLOCK)


@lru_cache(maxsize=64)
def _generator(dataset: str, settings: str, level: int | None, block: int) -> Generator:
    try:
        package = importlib.import_module("reasoning_gym.factory")
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "reasoning_gym", "reasoning") from error
    known = sorted(set(package.DATASETS) - set(UNUSABLE))
    if dataset in UNUSABLE:
        raise ConfigError(f"env.dataset: {dataset} cannot be used: {UNUSABLE[dataset]}")
    if dataset not in known:
        raise ConfigError(
            f"env.dataset: reasoning-gym has no dataset {dataset!r}{did_you_mean(dataset, known)} "
            f"(known: {', '.join(known)})"
        )
    make, config_class = package.DATASETS[dataset]
    chosen = {**json.loads(settings), "seed": block * BLOCK, "size": BLOCK}
    try:
        if level is None:
            config = config_class(**chosen)
        else:
            config = replace(_at_level(package, dataset, level), **chosen)
        if hasattr(config, "validate"):
            config.validate()
        return cast("Generator", make(config=config))
    except (AssertionError, TypeError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(
            f"env.config: {dataset} does not take {settings}"
            f"{'' if level is None else f' at level {level}'}: {error} (it has the fields "
            f"{', '.join(config_class.__dataclass_fields__)})"
        ) from error


def _at_level(package: ModuleType, dataset: str, level: int) -> DataclassInstance:
    """The dataset's config with every attribute of its curriculum at a level, or at its highest."""
    if not package.has_curriculum(dataset):
        raise ConfigError(f"env.levels: {dataset} has no curriculum; set env.levels=0")
    curriculum = package.create_curriculum(dataset)
    highest = max(len(attribute.levels) for attribute in curriculum.attributes.values())
    if level >= highest:
        raise ConfigError(f"env.levels: {dataset} has {highest} levels, set at most that many")
    curriculum.set_global_level(level)
    return cast("DataclassInstance", curriculum.generate_configuration())


@lru_cache(maxsize=4096)
def entry(source: Source, seed: int) -> Entry:
    """Question, answer and metadata of an index."""
    found = generator(source, seed)
    with _own_randomness(seed):
        return found[seed % BLOCK]


@cache
def starts(source: Source) -> Starts:
    """One walk per dataset, its config and process."""

    def begin(seed: int) -> Beginning:
        start = digest(str(entry(source, seed)["question"]))
        data: dict[str, Json] = {"question": start}
        if source.levels:
            data["level"] = seed % source.levels
        return Beginning(start, "", data)

    what = f"reasoning_gym with dataset={source.dataset}, config={source.settings}"
    return Starts(begin, place="env", what=what)
