"""`agentrl new-env NAME`: a small environment and its test that already work, to be edited.

In a clone of agentrl they are `envs/NAME.py` and `tests/envs/test_NAME.py`; in any other project a
module of its package (or beside its `pyproject.toml`), which is then named as an entry point.
"""

from __future__ import annotations

import keyword
import os
import re
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from string import Template

from agentrl.core import registry
from agentrl.core.errors import ConfigError, UnknownNameError

NAME = re.compile(r"[a-z][a-z0-9_]*")

ENV = Template('''\
"""$title: find a hidden number; each guess is answered by higher or lower.

What to change is marked EDIT. `agentrl check-env $name` says which promises hold meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, NamedTuple

from annotated_types import Ge

from agentrl.core.protocols import Env, RunsIn
from agentrl.core.registry import register
from agentrl.core.starts import digest, split_of
from agentrl.core.types import Action, Split, Step, Task


class State(NamedTuple):
    """EDIT: all that changes in an episode. In one place, a snapshot is free."""

    secret: int
    low: int
    high: int
    turns_left: int


@register("env", "$name")
@dataclass(kw_only=True)
class $title(Env):
    """Find a hidden number; each guess is answered by higher or lower."""

    # EDIT: "thread" if it waits for something, "process" if it may hang or crash.
    runs_in: ClassVar[RunsIn] = "inline"

    # EDIT: the settings; each is a key of the config (env.largest=1000) with its range.
    largest: Annotated[int, Ge(10)] = 100
    """The hidden number lies between 1 and this (10 or more)."""

    def __post_init__(self) -> None:
        self._now = State(0, 0, 0, turns_left=0)

    def tasks(self, split: Split) -> Sequence[Task]:
        """EDIT: every hidden number is a task; a hash of it decides its split (2:1:1)."""
        mine = (n for n in range(1, self.largest + 1) if split_of(digest(str(n))) == split)
        return [Task(id=f"$name/{n}", seed=n) for n in mine]

    def reset(self, task: Task) -> str:
        """EDIT: begin an episode; set whatever `step` reads, for an env plays many of them."""
        self._now = State(task.seed, 1, self.largest, turns_left=2 * self.largest.bit_length())
        return f"find a number between 1 and {self.largest}"

    def step(self, action: Action) -> Step:
        """EDIT: one guess; what is no guess costs a turn and is reported as invalid."""
        secret, low, high, left = self._now
        if left == 0:
            raise RuntimeError("$name: the episode is over: call reset(task)")
        text, is_found, is_valid = "say a number", False, action in self.legal_actions()
        if is_valid:
            guess = int(str(action))
            is_found = guess == secret
            low, high = (guess + 1, high) if guess < secret else (low, guess - 1)
            text = "found" if is_found else "higher" if guess < secret else "lower"
        self._now = State(secret, low, high, turns_left=0 if is_found else left - 1)
        is_cut = not is_found and self._now.turns_left == 0
        info: dict[str, object] = {} if is_valid else {"invalid_action": True}
        if is_found or is_cut:
            info["success"] = is_found
        return Step(
            observation=text,
            reward=float(is_found),
            terminated=is_found,
            truncated=is_cut,
            info=info,
        )

    # EDIT: each of the methods below is optional; having it is having the ability.

    def legal_actions(self) -> list[str]:
        """Every number that it can still be."""
        return [str(n) for n in range(self._now.low, self._now.high + 1)]

    def expert_action(self) -> str:
        """The number in the middle."""
        return str((self._now.low + self._now.high) // 2)

    def state_key(self) -> str:
        """The number and what is known of it; equal in every process."""
        return f"{self._now.secret} in {self._now.low}-{self._now.high}"

    def snapshot(self) -> State:
        """The state."""
        return self._now

    def restore(self, snapshot: State) -> None:
        """Go on from a snapshot."""
        self._now = snapshot
''')

TEST = Template('''\
"""$title keeps the promises of an env, and answers guesses rightly."""

$imports


def test_it_keeps_every_promise_of_an_env() -> None:
    report = check_env($title(), tasks=3)
    assert report.passed, "\\n".join(report.lines())


# EDIT: what this env does, one claim a test.


def test_guesses_are_answered_until_the_number_is_found() -> None:
    env = $title(largest=10)
    env.reset(Task(id="seven", seed=7))
    answers = [env.step(guess).observation for guess in ("5", "8", "7")]
    assert answers == ["higher", "lower", "found"]


def test_the_expert_finds_every_number_in_time() -> None:
    env = $title()
    for task in env.tasks("test"):
        env.reset(task)
        step = env.step(env.expert_action())
        while not (step.terminated or step.truncated):
            step = env.step(env.expert_action())
        assert step.info["success"], task.id
''')


@dataclass(frozen=True, kw_only=True)
class Written:
    """What was written (relative to where it was asked for), and what to do next."""

    files: tuple[Path, ...]
    advice: tuple[str, ...]

    def lines(self) -> list[str]:
        """The files, then the advice."""
        return [*(f"wrote {path}" for path in self.files), "", *self.advice]


@dataclass(frozen=True, kw_only=True)
class _Place:
    module: str
    env: Path
    test: Path
    is_ours: bool


def new_env(name: str, folder: Path) -> Written:
    """Write an env called `name` and its test into the project that `folder` lies in.

    Raises:
        ConfigError: the name cannot be used, or a file of that name exists.
    """
    _check_name(name)
    place = _place_of(name, folder)
    for path in (place.env, place.env.with_suffix(""), place.test):
        if path.exists():
            raise ConfigError(
                f"new-env: {path} exists and is not overwritten: choose another name, or move it"
            )
    title = "".join(part.capitalize() for part in name.split("_"))
    words = {"name": name, "title": title, "imports": _imports(title, place)}
    for path, template in ((place.env, ENV), (place.test, TEST)):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(template.substitute(words), encoding="utf-8")
    files = [Path(os.path.relpath(path, folder)) for path in (place.env, place.test)]
    return Written(files=tuple(files), advice=_advice(name, place, files[1]))


def _check_name(name: str) -> None:
    if not NAME.fullmatch(name):
        parts = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name).lower()
        near = re.sub(r"[^a-z0-9]+", "_", parts).strip("_0123456789")
        hint = f"; did you mean {near!r}?" if len(near) > 1 and NAME.fullmatch(near) else ""
        raise ConfigError(
            f"new-env: expected a name of small letters, digits and underscores that begins with "
            f"a letter, got {name!r}{hint}"
        )
    if keyword.iskeyword(name) or name in sys.stdlib_module_names:
        what = "a keyword of Python" if keyword.iskeyword(name) else "a module of Python's own"
        raise ConfigError(f"new-env: {name!r} is {what}: choose another name, such as {name}_env")
    try:
        taken = registry.find("env", name)
    except UnknownNameError:
        return
    raise ConfigError(
        f"new-env: an env is called {name!r} already ({taken.__module__}): choose another name"
    )


def _imports(title: str, place: _Place) -> str:
    own = f"from {place.module} import {title}"
    ours = [
        f"from agentrl.{m}"
        for m in ("core.types import Task", "evaluate.check_env import check_env")
    ]
    return "\n".join(sorted([*ours, own])) if place.is_ours else "\n".join([*ours, "", own])


def _place_of(name: str, folder: Path) -> _Place:
    """Where the files go: the folder's project is the nearest one above with a pyproject.toml."""
    root = next((f for f in (folder, *folder.parents) if (f / "pyproject.toml").is_file()), folder)
    project = _project(root)
    if project == "agentrl" and (root / "envs").is_dir():
        env, test = root / "envs" / f"{name}.py", root / "tests" / "envs" / f"test_{name}.py"
        return _Place(module=f"agentrl.envs.{name}", env=env, test=test, is_ours=True)
    for package in (root / "src" / project, root / project):
        if project and (package / "__init__.py").is_file():
            tests = root / "tests" if (root / "tests").is_dir() else root
            test = tests / f"test_{name}.py"
            env = package / f"{name}.py"
            return _Place(module=f"{project}.{name}", env=env, test=test, is_ours=False)
    test = root / f"test_{name}.py"
    return _Place(module=name, env=root / f"{name}.py", test=test, is_ours=False)


def _project(root: Path) -> str:
    """The project's name as its package is spelt; empty if there is none."""
    path = root / "pyproject.toml"
    if not path.is_file():
        return ""
    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error
    return str(settings.get("project", {}).get("name", "")).replace("-", "_").lower()


def _advice(name: str, place: _Place, test: Path) -> tuple[str, ...]:
    entry = (
        "So that configs find it, name it in pyproject.toml and install the project again:",
        '  [project.entry-points."agentrl.plugins"]',
        f'  {name} = "{place.module}"',
        "",
    )
    return (
        *(() if place.is_ours else entry),
        "What to change is marked EDIT. Then:",
        f"  agentrl check-env {name}",
        f"  agentrl play {name}",
        f"  pytest {test}",
    )
