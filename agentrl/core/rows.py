"""Tasks that are rows of a JSON-lines file, and code that a config names by `module:name`.

For envs that play what somebody else wrote: each names a function or class, and its rows.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import cast

from agentrl.core.errors import ConfigError, did_you_mean
from agentrl.core.starts import digest, split_of
from agentrl.core.types import Json, Split, Task


def imported(path: str, *, key: str, what: str, example: str) -> Callable[..., object]:
    """What `module:name` names.

    Args:
        key: the config key that holds the path, for messages.
        what: what the name should be: a class, a function.

    Raises:
        ConfigError: nothing callable is there.
    """
    module_name, colon, name = path.partition(":")
    if not (module_name and colon and name):
        raise ConfigError(f"{key}: expected module:NAME, such as {example} (got {path!r})")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ConfigError(
            f"{key}: cannot import {module_name!r} ({error}); put its folder on PYTHONPATH, or "
            "install its package"
        ) from error
    made = getattr(module, name, None)
    if not callable(made):
        public = [n for n in vars(module) if not n.startswith("_")]
        near = did_you_mean(name, public)
        raise ConfigError(f"{key}: {module_name} has no {what} {name!r}{near}")
    return cast("Callable[..., object]", made)


def row_tasks(rows: Path | None, *, seeds: int, prefix: str, split: Split) -> list[Task]:
    """A split of a file's rows, or of `{"seed": n}` where there is no file. Equal rows are one
    task; a hash of the row decides its split (2:1:1).

    Raises:
        ConfigError: there is no such file, or a line of it is no JSON object.
    """
    found = [{"seed": number} for number in range(seeds)] if rows is None else read_rows(rows)
    tasks = {}
    for row in found:
        name = digest(json.dumps(row, sort_keys=True, ensure_ascii=False))
        if split_of(name) == split:
            task = Task(id=f"{prefix}/{name}", seed=int(name[:8], 16), data={"row": row})
            tasks[task.id] = task
    return list(tasks.values())


def read_rows(path: Path) -> list[Mapping[str, Json]]:
    """The objects of a JSON-lines file. Raises `ConfigError`, naming the line."""
    if not path.is_file():
        raise ConfigError(f"rows: no file {path}")
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if line.strip():
            rows.append(_row(line, f"{path}:{number}"))
    return rows


def _row(line: str, where: str) -> Mapping[str, Json]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ConfigError(f"rows: {where} is not JSON: {error}") from error
    if not isinstance(row, dict):
        raise ConfigError(f"rows: {where}: expected an object, got {line:.100}")
    return row
