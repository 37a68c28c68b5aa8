"""The data and the checkers of the package `bfcl-eval`, read from its wheel.

The package pins numpy, filelock and some thirty other packages, so it cannot be installed beside
torch and transformers. Its wheel holds all that is needed: JSON lines, and checkers that import
nothing but each other and mpmath, save for a table of models, in whose place stands an entry for
whoever is evaluated here. Nothing is installed or unpacked.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import threading
from functools import cache
from importlib import import_module, metadata
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from zipfile import ZipFile

from agentrl.core.errors import ConfigError, MissingDataError

NAME = "agentrl"
"""What the package's checkers call the model."""
VARIABLE = "BFCL_EVAL"
CACHE = Path("~/.cache/agentrl/bfcl")
CHECKERS = "bfcl_eval.eval_checker"
_LOCK = threading.Lock()

Row = dict[str, Any]
"""A line of the package's data."""


def locate(path: Path | None) -> Path:
    """The wheel, or the folder that holds `bfcl_eval`: a given one, that of the environment
    variable `BFCL_EVAL`, one in `~/.cache/agentrl/bfcl`, or where the package is installed.

    Raises:
        MissingDataError: it is nowhere.
    """
    named = path or (Path(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None)
    places = [named] if named else [CACHE, *_installed()]
    for place in (p.expanduser() for p in places):
        if (place / "bfcl_eval").is_dir() or place.is_file():
            return place
        wheels = sorted(place.glob("bfcl_eval-*.whl"))
        if wheels:
            return wheels[-1]
    raise MissingDataError(
        f"env.wheel: bfcl-eval is not in {' or '.join(map(str, places))}: fetch its wheel, "
        f"pip download --no-deps bfcl-eval -d {CACHE}, or name the file by env.wheel or {VARIABLE}"
    )


def _installed() -> list[Path]:
    try:
        return [Path(str(metadata.distribution("bfcl_eval").locate_file("")))]
    except metadata.PackageNotFoundError:
        return []


@cache
def rows(place: Path, name: str) -> tuple[Row, ...]:
    """The lines of `data/name.json`. Raises `ConfigError` if this version has no such file."""
    inside = f"bfcl_eval/data/{name}.json"
    try:
        if place.is_file():
            with ZipFile(place) as wheel:
                text = wheel.read(inside).decode()
        else:
            text = (place / inside).read_text()
    except (KeyError, OSError) as error:
        raise ConfigError(f"env.wheel: {place} holds no {inside}: {error}") from error
    return tuple(json.loads(line) for line in text.splitlines() if line.strip())


def module(place: Path, name: str) -> Any:
    """A module of the package; the first place that one is asked of serves the whole process."""
    with _LOCK:
        _register(place)
        return import_module(f"bfcl_eval.{name}")


def private(place: Path, name: str) -> Any:
    """A copy of a module for one user: some keep what is going on in their globals."""
    with _LOCK:
        _register(place)
        spec = importlib.util.find_spec(f"bfcl_eval.{name}")
        assert spec is not None
        assert spec.loader is not None
        copy = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(copy)
        return copy


def _register(place: Path) -> None:
    if "bfcl_eval" not in sys.modules:
        package = ModuleType("bfcl_eval")
        package.__path__ = [str(place / "bfcl_eval")]
        sys.modules["bfcl_eval"] = package
    models: Any = ModuleType("bfcl_eval.constants.model_config")
    models.MODEL_CONFIG_MAPPING = {NAME: SimpleNamespace(underscore_to_dot=False)}
    sys.modules.setdefault("bfcl_eval.constants.model_config", models)
