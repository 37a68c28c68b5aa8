"""Episodes on disk, token by token: `trajectories/*.parquet`, for the report and anyone's pandas.

A record is plain data, made from a `Trajectory` by `record`. Of each turn it keeps the tokens that
are new: what the prompt adds to the row so far, then what was sampled; joining the turns of a row
gives that row. Without pyarrow the same records are written as JSON lines.
"""

from __future__ import annotations

import base64
import importlib.util
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from agentrl.core.errors import DataError
from agentrl.core.types import Action, Trajectory, Turn

if TYPE_CHECKING:
    import pyarrow

SCHEMA_VERSION = 1
_VERSION_KEY = "agentrl.trajectories"

Phase = Literal["train", "eval", "demo"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnRecord:
    """A turn and its new tokens: prompt increment, then the reply (`mask` True where sampled). The
    token lists have one length; tokens that were not sampled have no logprob, and none of the
    tokens an advantage if the episode was not trained on."""

    row: int
    new_row: bool
    """Whether the tokens begin a row (the whole prompt stands here) or continue the last one."""
    pieces: list[str]
    ids: list[int]
    mask: list[bool]
    logprobs: list[float | None]
    advantages: list[float | None]
    action: str | None
    """The canonical action; a list of calls as JSON; None if the message held none."""
    reward: float
    invalid: bool
    finish: str
    images: list[str]
    state_key: str | None
    spots: list[list[int]] = field(default_factory=list)
    """Where the action pointed in the last picture: `[x, y, 1 where a drag let go, else 0]`, in
    thousandths of its width and height."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeRecord:
    """An episode and where it comes from."""

    phase: Phase
    label: str
    """Which evaluation (`final`, `sft`, `step`, ...) or part of training."""
    step: int
    group: int
    sibling: int
    task_id: str
    task_seed: int
    instruction: str
    stop: str
    success: bool | None
    reward: float | None
    """The score's value; None without a score."""
    parts: Mapping[str, float] = field(default_factory=dict)
    env_return: float
    failure: str | None
    """`where: error` of an episode that the machinery broke."""
    seconds: float
    turns: list[TurnRecord]
    pixels: Mapping[str, bytes] = field(default_factory=dict)
    """Content hash -> PNG."""

    @property
    def n_turns(self) -> int:
        """How many turns were played."""
        return len(self.turns)


class Head(NamedTuple):
    """Enough of an episode to choose it by."""

    phase: str
    label: str
    step: int
    group: int
    success: bool | None
    failure: str | None


def record(
    trajectory: Trajectory,
    *,
    phase: Phase,
    label: str,
    step: int,
    group: int,
    sibling: int,
    piece: Callable[[int], str],
    advantages: Sequence[Sequence[float]] | None = None,
) -> EpisodeRecord:
    """What is kept of a trajectory.

    Args:
        trajectory: the episode.
        phase: what it was played for.
        label: which evaluation, or part of training.
        step: the training step.
        group: its group's index in the step.
        sibling: its index in the group.
        piece: the text of one token id.
        advantages: `[turn][sampled token]`; None if it was not trained on.

    Raises:
        DataError: the advantages do not fit the sampled tokens, or a turn claims to continue a row
            that its prompt does not begin with.
    """
    if advantages is not None:
        sampled = [len(turn.action_ids) for turn in trajectory.turns]
        given = [len(values) for values in advantages]
        if given != sampled:
            raise DataError(f"advantages per turn {given} do not fit the sampled tokens {sampled}")
    failure = trajectory.failure
    return EpisodeRecord(
        phase=phase,
        label=label,
        step=step,
        group=group,
        sibling=sibling,
        task_id=trajectory.task.id,
        task_seed=trajectory.task.seed,
        instruction=trajectory.task.instruction,
        stop=trajectory.stop.value,
        success=trajectory.success,
        reward=trajectory.score.value if trajectory.score else None,
        parts=dict(trajectory.score.parts) if trajectory.score else {},
        env_return=trajectory.env_return,
        failure=f"{failure.where}: {failure.error}" if failure else None,
        seconds=trajectory.seconds,
        turns=list(_turns(trajectory.turns, piece, advantages)),
        pixels={name: image.png for name, image in trajectory.pixels.items()},
    )


def write_episodes(path: Path, episodes: Sequence[EpisodeRecord]) -> Path:
    """Write a file whole or not at all.

    Returns:
        The file written: `path`, or the same name with `.jsonl` where pyarrow is missing.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if importlib.util.find_spec("pyarrow") is None:
        _warn_of_json()
        path = path.with_suffix(".jsonl")
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        if path.suffix == ".jsonl":
            _write_json(temporary, episodes)
        else:
            _write_parquet(temporary, episodes)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def read_episodes(path: Path, only: Sequence[int] | None = None) -> list[EpisodeRecord]:
    """What `write_episodes` wrote, or only the episodes at some indices, in that order.

    Raises:
        DataError: the file is none of ours, or of a schema that this version cannot read.
    """
    if path.suffix == ".jsonl":
        lines = list(_json_lines(path))
        return [_from_json(lines[i]) for i in (range(len(lines)) if only is None else only)]
    import pyarrow.parquet as parquet

    _check_version(path, (parquet.read_schema(path).metadata or {}).get(_VERSION_KEY.encode()))
    table = parquet.read_table(path)
    table = table if only is None else table.take(list(only))
    return [_from_plain(row) for row in table.to_pylist()]


def read_heads(path: Path) -> list[Head]:
    """One head per episode of a file, in order, without reading its tokens (if it is Parquet).

    Raises:
        DataError: as `read_episodes`.
    """
    if path.suffix == ".jsonl":
        return [Head(**{name: row[name] for name in Head._fields}) for row in _json_lines(path)]
    import pyarrow.parquet as parquet

    with parquet.ParquetFile(path) as file:
        _check_version(path, (file.schema_arrow.metadata or {}).get(_VERSION_KEY.encode()))
        table = file.read(columns=list(Head._fields))
    columns = [table[name].to_pylist() for name in Head._fields]
    return [Head(*values) for values in zip(*columns, strict=True)]


def _turns(
    turns: Sequence[Turn],
    piece: Callable[[int], str],
    advantages: Sequence[Sequence[float]] | None,
) -> Iterator[TurnRecord]:
    row: tuple[int, ...] = ()
    row_number: int | None = None
    for index, turn in enumerate(turns):
        is_new = turn.row != row_number
        if is_new:
            row, row_number = (), turn.row
        if turn.prompt_ids[: len(row)] != row:
            raise DataError(
                f"turn {index} says it continues row {turn.row}, but its prompt of "
                f"{len(turn.prompt_ids)} tokens does not begin with that row's {len(row)}: "
                "a rewritten history must open a new row"
            )
        added = turn.prompt_ids[len(row) :]
        row = turn.prompt_ids + turn.reply_ids
        places = [len(added) + place for place in turn.places]
        logprobs: list[float | None] = [None] * (len(added) + len(turn.reply_ids))
        credit = list(logprobs)
        for a, place in enumerate(places):
            logprobs[place] = turn.sampler_logprobs[a]
            credit[place] = advantages[index][a] if advantages else None
        yield TurnRecord(
            row=turn.row,
            new_row=is_new,
            pieces=[piece(token) for token in added + turn.reply_ids],
            ids=[*added, *turn.reply_ids],
            mask=[logprob is not None for logprob in logprobs],
            logprobs=logprobs,
            advantages=credit,
            action=_canonical(turn.action),
            reward=turn.reward,
            invalid=turn.invalid,
            finish=turn.finish.value,
            images=list(turn.images),
            state_key=turn.state_key,
            spots=[[int(part) for part in spot] for spot in turn.spots],
        )


def _canonical(action: Action | None) -> str | None:
    return json.dumps(action, ensure_ascii=False) if isinstance(action, list) else action


@lru_cache(maxsize=1)
def _warn_of_json() -> None:
    """Once per process."""
    logger.warning(
        "pyarrow is not installed: episodes are written as JSON lines (pip install pyarrow)"
    )


def _schema() -> pyarrow.Schema:
    import pyarrow as pa

    turn = pa.struct(
        [
            ("row", pa.int32()),
            ("new_row", pa.bool_()),
            ("pieces", pa.list_(pa.string())),
            ("ids", pa.list_(pa.int32())),
            ("mask", pa.list_(pa.bool_())),
            ("logprobs", pa.list_(pa.float64())),
            ("advantages", pa.list_(pa.float64())),
            ("action", pa.string()),
            ("reward", pa.float64()),
            ("invalid", pa.bool_()),
            ("finish", pa.string()),
            ("images", pa.list_(pa.string())),
            ("state_key", pa.string()),
            ("spots", pa.list_(pa.list_(pa.int32()))),
        ]
    )
    return pa.schema(
        [
            ("phase", pa.string()),
            ("label", pa.string()),
            ("step", pa.int64()),
            ("group", pa.int64()),
            ("sibling", pa.int64()),
            ("task_id", pa.string()),
            ("task_seed", pa.int64()),
            ("instruction", pa.string()),
            ("stop", pa.string()),
            ("success", pa.bool_()),
            ("reward", pa.float64()),
            ("parts", pa.map_(pa.string(), pa.float64())),
            ("env_return", pa.float64()),
            ("failure", pa.string()),
            ("seconds", pa.float64()),
            ("n_turns", pa.int64()),
            ("turns", pa.list_(turn)),
            ("pixels", pa.map_(pa.string(), pa.binary())),
        ],
        metadata={_VERSION_KEY: str(SCHEMA_VERSION)},
    )


def _write_parquet(path: Path, episodes: Sequence[EpisodeRecord]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    table = pa.Table.from_pylist([_to_plain(episode) for episode in episodes], schema=_schema())
    parquet.write_table(table, path, compression="zstd")


def _write_json(path: Path, episodes: Sequence[EpisodeRecord]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(json.dumps({_VERSION_KEY: SCHEMA_VERSION}) + "\n")
        for episode in episodes:
            plain = _to_plain(episode)
            pixels = {name: base64.b64encode(png).decode() for name, png in episode.pixels.items()}
            file.write(json.dumps(plain | {"pixels": pixels}) + "\n")


def _json_lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        first = json.loads(file.readline() or "null")
        _check_version(path, first.get(_VERSION_KEY) if isinstance(first, dict) else None)
        for line in file:
            yield json.loads(line)


def _from_json(plain: dict[str, Any]) -> EpisodeRecord:
    pixels = {name: base64.b64decode(png) for name, png in plain["pixels"].items()}
    return _from_plain(plain | {"pixels": pixels})


def _to_plain(episode: EpisodeRecord) -> dict[str, Any]:
    turns = [{f.name: getattr(turn, f.name) for f in fields(turn)} for turn in episode.turns]
    plain = {f.name: getattr(episode, f.name) for f in fields(episode)}
    return plain | {"n_turns": episode.n_turns, "turns": turns}


def _from_plain(plain: Mapping[str, Any]) -> EpisodeRecord:
    values = {key: value for key, value in plain.items() if key != "n_turns"}
    return EpisodeRecord(
        **values
        | {
            "turns": [TurnRecord(**turn) for turn in plain["turns"]],
            "parts": dict(plain["parts"]),
            "pixels": dict(plain["pixels"]),
        }
    )


def _check_version(path: Path, found: bytes | int | None) -> None:
    """Raises `DataError` unless the file says it has our schema version."""
    if found is None:
        raise DataError(f"{path} does not hold episodes: it names no {_VERSION_KEY} version")
    version = int(found)
    if version != SCHEMA_VERSION:
        raise DataError(
            f"{path} has episode schema version {version}, and this agentrl reads "
            f"{SCHEMA_VERSION}: read it with the agentrl that wrote it"
        )
