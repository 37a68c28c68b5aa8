"""Where a run goes on: the checkpoint, what the run remembered there, and what came after it.

A resumed run equals the uninterrupted one, because everything random is a function of (seed, step)
and everything else is here: weights and optimiser (the backend's `trainer/`), the state of parts
that keep one, and what the run has said and measured. What was logged after the checkpoint is
taken back.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Literal

import yaml

from agentrl.core.config import Config
from agentrl.core.errors import CheckpointError, ConfigError
from agentrl.core.loading import to_yaml
from agentrl.core.protocols import Stateful
from agentrl.core.types import Json
from agentrl.evaluate.statistics import cut_evals
from agentrl.train.checkpoint import Checkpoints, verify, write_whole

STATE_FILE = "state.json"
TRAINER = "trainer"
"""Folder of a checkpoint with the backend's own files."""
MAY_CHANGE = ("run.steps", "run.env_steps", "run.folder", "track", "checkpoint", "eval", "parallel")
"""Keys that a resumed run may change; any other would make it another run."""

Resume = Literal["never", "auto"] | Path
"""`auto`: from the newest whole checkpoint if there is one; a folder: from that checkpoint."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """What a run remembers besides weights and optimiser, as of one checkpoint."""

    step: int = 0
    """Training steps done."""
    version: int = 0
    """Weight version that the engine samples from."""
    probe_ids: tuple[int, ...] = ()
    told: tuple[str, ...] = ()
    """What was said once and is not said again."""
    sft_steps: Mapping[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    """Wall-clock time of the run so far."""
    cpu_seconds: float = 0.0
    env_steps: int = 0
    parts: Mapping[str, Json] = field(default_factory=dict)
    """Config key -> state of the part (`core.protocols.Stateful`)."""

    def write(self, folder: Path) -> None:
        """As `state.json` in a checkpoint."""
        write_whole(folder / STATE_FILE, json.dumps(asdict(self), indent=1) + "\n")


def read_progress(checkpoint: Path) -> Progress:
    """What `Progress.write` wrote. Raises `CheckpointError` if it is not there or not whole."""
    path = checkpoint / STATE_FILE
    try:
        raw = json.loads(path.read_text())
        known = {f.name for f in fields(Progress)}
        if not isinstance(raw, dict) or set(raw) != known:
            raise ValueError(f"expected the keys {', '.join(sorted(known))}")
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path}: a run cannot go on from this checkpoint ({error}); its weights load as a "
            "model (model=FOLDER)"
        ) from error
    return Progress(**{**raw, "probe_ids": tuple(raw["probe_ids"]), "told": tuple(raw["told"])})


def part_states(config: Config) -> dict[str, Json]:
    """The states of all parts that keep one, by config key."""
    return {key: part.state() for key, part in _stateful(config).items()}


def restore_parts(config: Config, states: Mapping[str, Json]) -> None:
    """Give every part its state back. Raises `CheckpointError` if one has none."""
    parts = _stateful(config)
    if set(parts) != set(states):
        raise CheckpointError(
            f"the checkpoint holds the state of {', '.join(sorted(states)) or 'no part'}, but the "
            f"run has parts with a state at {', '.join(sorted(parts)) or 'no key'}"
        )
    for key, part in parts.items():
        part.restore(states[key])


def _stateful(config: Config) -> dict[str, Stateful]:
    """An env is none: its `restore` is that of snapshots, and each episode begins anew."""
    others = {"env"} if config.bonus is not None else {"env", "channel"}
    parts = {f.name: getattr(config, f.name) for f in fields(config) if f.name not in others}
    return {key: part for key, part in parts.items() if isinstance(part, Stateful)}


def find_point(
    config: Config, resume: Resume, checkpoints: Checkpoints
) -> tuple[Path | None, list[str]]:
    """The checkpoint to go on from (None: begin anew), and what to tell people about the choice.

    Raises:
        ConfigError: the checkpoint is none of this run's, or the config is another one.
        CheckpointError: no checkpoint of the run is as it was written.
    """
    if resume == "never":
        return None, []
    if isinstance(resume, Path):
        verify(_of_run(resume, checkpoints))
        check_same(config, resume.parent.parent / "config.yaml")
        return checkpoints.folder / resume.name, []
    whole = checkpoints.complete()
    if not whole:
        return None, []
    check_same(config, checkpoints.folder.parent / "config.yaml")
    told: list[str] = []
    for path in reversed(whole):
        try:
            verify(path)
        except CheckpointError as error:
            told.append(f"resume: {error}")
        else:
            return path, told
    raise CheckpointError(
        f"resume: none of the {len(whole)} checkpoints in {checkpoints.folder} is as it was "
        f"written: {told[-1]}"
    )


def _of_run(checkpoint: Path, checkpoints: Checkpoints) -> Path:
    known = [path.name for path in checkpoints.complete()]
    same = checkpoint.resolve().parent == checkpoints.folder.resolve()
    if not same or checkpoint.name not in known:
        raise ConfigError(
            f"--resume {checkpoint}: expected auto, or one of this run's checkpoints in "
            f"{checkpoints.folder} ({', '.join(known) or 'there is none'})"
        )
    return checkpoint


def check_same(config: Config, written: Path) -> None:
    """A run goes on only under the config that it began with, but for `MAY_CHANGE`.

    Raises:
        ConfigError: naming each key that differs, with both values.
    """
    if not written.exists():
        raise ConfigError(f"--resume: {written} is missing, so the run cannot be compared with it")
    old, new = _flat(yaml.safe_load(written.read_text())), _flat(yaml.safe_load(to_yaml(config)))
    changed = [
        f"{key}: was {old.get(key, 'absent')!r}, is {new.get(key, 'absent')!r}"
        for key in sorted({*old, *new})
        if old.get(key) != new.get(key)
        and not any(key == free or key.startswith(f"{free}.") for free in MAY_CHANGE)
    ]
    if changed:
        raise ConfigError(
            "--resume: the run began with other settings:\n  "
            + "\n  ".join(changed)
            + f"\nTake them back, or start another run (run.name=...). Free to change: "
            f"{', '.join(MAY_CHANGE)}"
        )


def _flat(tree: Json, prefix: str = "") -> dict[str, Json]:
    if not isinstance(tree, Mapping) or not tree:
        return {prefix: tree}
    found: dict[str, Json] = {}
    for key, value in tree.items():
        found |= _flat(value, f"{prefix}.{key}" if prefix else str(key))
    return found


def take_back(folder: Path, step: int) -> None:
    """Remove the episodes and evaluations that were written after `step`, and what a kill left of
    a file that was being written; sinks cut theirs."""
    written = [*(folder / "trajectories").glob("*"), *(folder / "schedule").glob("*")]
    for path in written:
        found = re.match(r"(?:train|step)-(\d+)|eval-final|\.", path.name)
        if found and (found[1] is None or int(found[1]) > step):
            path.unlink()
    cut_evals(folder, step)
