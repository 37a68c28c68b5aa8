"""Groups as JSON and back, exactly: what a checkpoint keeps of them, and a recorded schedule."""

from __future__ import annotations

import base64
import gzip
import json
import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from agentrl.core.errors import DataError
from agentrl.core.types import (
    Failure,
    Finish,
    Forced,
    Fork,
    Group,
    Image,
    Score,
    Spot,
    Start,
    Stop,
    Task,
    Trajectory,
    Turn,
)

SCHEMA = 4


def write_groups(path: Path, groups: Sequence[Group]) -> None:
    """The groups in one file, whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"schema": SCHEMA, "groups": [_plain(group) for group in groups]})
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(gzip.compress(text.encode(), mtime=0))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_groups(path: Path) -> list[Group]:
    """What `write_groups` wrote.

    Raises:
        DataError: there is no such file, or it is not whole, or of another version of agentrl.
    """
    try:
        found = json.loads(gzip.decompress(path.read_bytes()))
        if found["schema"] != SCHEMA:
            raise ValueError(f"expected schema {SCHEMA}, got {found['schema']!r}")
        return [_group(raw) for raw in found["groups"]]
    except (OSError, EOFError, ValueError, KeyError, TypeError, zlib.error) as error:
        raise DataError(
            f"{path}: expected groups that a run recorded ({type(error).__name__}: {error})"
        ) from error


def _plain(group: Group) -> dict[str, Any]:
    raw = asdict(group)
    greedy = raw["greedy"]
    for trajectory in [*raw["trajectories"], *([greedy] if greedy is not None else [])]:
        for image in trajectory["pixels"].values():
            image["png"] = base64.b64encode(image["png"]).decode()
    return raw


def _group(raw: Mapping[str, Any]) -> Group:
    return Group(
        **{
            **_known(Group, raw),
            "task": Task(**raw["task"]),
            "start": _start(raw["start"]),
            "trajectories": tuple(_trajectory(t) for t in raw["trajectories"]),
            "bonus": raw["bonus"] and tuple(map(tuple, raw["bonus"])),
            "greedy": None if raw["greedy"] is None else _trajectory(raw["greedy"]),
        }
    )


def _trajectory(raw: Mapping[str, Any]) -> Trajectory:
    failure, parent = raw["failure"], raw["parent"]
    return Trajectory(
        **{
            **_known(Trajectory, raw),
            "task": Task(**raw["task"]),
            "start": _start(raw["start"]),
            "stop": Stop(raw["stop"]),
            "turns": tuple(_turn(turn) for turn in raw["turns"]),
            "parent": None if parent is None else Fork(*parent),
            "score": raw["score"] and _score(raw["score"]),
            "failure": failure and Failure(**failure),
            "goals": tuple(raw["goals"]),
            "held": tuple(raw["held"]),
            "progress": tuple((place, chance) for place, chance in raw["progress"]),
            "pixels": {
                name: Image(base64.b64decode(image["png"])) for name, image in raw["pixels"].items()
            },
        }
    )


def _score(raw: Mapping[str, Any]) -> Score:
    turns = raw["turns"]
    return Score(**{**_known(Score, raw), "turns": None if turns is None else tuple(turns)})


def _turn(raw: Mapping[str, Any]) -> Turn:
    forced = raw["forced"]
    return Turn(
        **{
            **_known(Turn, raw),
            "prompt_ids": tuple(raw["prompt_ids"]),
            "action_ids": tuple(raw["action_ids"]),
            "sampler_logprobs": tuple(raw["sampler_logprobs"]),
            "versions": tuple((version, count) for version, count in raw["versions"]),
            "images": tuple(raw["images"]),
            "held": tuple(raw["held"]),
            "spots": tuple(Spot(*spot) for spot in raw["spots"]),
            "finish": Finish(raw["finish"]),
            "forced": None if forced is None else Forced(forced[0], tuple(forced[1])),
        }
    )


def _start(raw: Mapping[str, Any]) -> Start:
    return Start(cell=raw["cell"], actions=tuple(raw["actions"]))


def _known(kind: type, raw: Mapping[str, Any]) -> dict[str, Any]:
    """The fields as they are; one that is missing or unknown raises `KeyError` or `TypeError`."""
    names = [f.name for f in fields(kind)]
    return {name: raw[name] for name in names}
