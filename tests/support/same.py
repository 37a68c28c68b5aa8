"""Whether two runs are the same run: everything that a clock did not measure, bit for bit."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

import torch
from safetensors.torch import load_file

from agentrl.evaluate.statistics import read_evals
from agentrl.track.trajectories import read_episodes
from agentrl.train.checkpoint import Checkpoints, step_of
from agentrl.train.parallel.deepspeed import TAG, Tensors
from support.whole_runs import timeless


def differences(one: Path, other: Path) -> list[str]:
    """What differs between two run folders: metrics, evaluations, the sequence of tasks and the
    tokens sampled on them, weights, optimiser, what the last checkpoint remembers."""
    found = []
    if timeless(one) != timeless(other):
        found.append("metrics.jsonl")
    if _evals(one) != _evals(other):
        found.append("evals.jsonl")
    names = [{p.name for p in (run / "trajectories").iterdir()} for run in (one, other)]
    if names[0] != names[1]:
        found.append(f"files in trajectories/: {sorted(names[0] ^ names[1])}")
    found += [
        f"trajectories/{name}"
        for name in sorted(names[0] & names[1])
        if _episodes(one / "trajectories" / name) != _episodes(other / "trajectories" / name)
    ]
    last, twin = (Checkpoints(folder=run / "checkpoints").newest() for run in (one, other))
    if last is None or twin is None or step_of(last) != step_of(twin):
        return [*found, f"the last checkpoint: {last}, {twin}"]
    return [*found, *_other_tensors(last, twin)]


def _evals(run: Path) -> list[tuple[object, ...]]:
    return [(e.name, e.step, e.success, e.reward, dict(e.stops)) for e in read_evals(run)]


def _episodes(path: Path) -> list[tuple[object, ...]]:
    return [(e.task_id, e.group, e.sibling, e.reward, e.turns) for e in read_episodes(path)]


def _other_tensors(one: Path, other: Path) -> list[str]:
    found = []
    for name in ("model.safetensors", "trainer/trained.safetensors"):
        if (one / name).exists() != (other / name).exists():
            found.append(f"{name} is in one of them only")
        elif (one / name).exists() and not _equal(load_file(one / name), load_file(other / name)):
            found.append(name)
    values = one / "trainer" / "critic" / "values.safetensors"
    twin = other / "trainer" / "critic" / "values.safetensors"
    if values.exists() and twin.exists():
        found += ["the critic"] if not _equal(load_file(values), load_file(twin)) else []
        found += [f"critic: {what}" for what in _other_state(values.parent, twin.parent)]
    return [*found, *_other_state(one / "trainer", other / "trainer")]


def _other_state(one: Path, other: Path) -> list[str]:
    """What the backend keeps: an optimiser as one file, files of DeepSpeed's, or the values that
    shards hold (the layout of their bytes differs from save to save)."""
    names = [sorted(p.name for p in folder.iterdir()) for folder in (one, other)]
    if names[0] != names[1]:
        return [f"files in trainer/: {set(names[0]) ^ set(names[1])}"]
    if "optimiser.pt" in names[0]:
        states = [torch.load(p / "optimiser.pt", weights_only=True) for p in (one, other)]
        return [] if _equal(*states) else ["optimiser.pt"]
    if TAG in names[0]:
        read = Tensors(object()).load
        return [
            path.name
            for path in sorted((one / TAG).iterdir())
            if not _equal(read(str(path)), read(str(other / TAG / path.name)))
        ]
    return [] if _equal(_joined(one / "shards"), _joined(other / "shards")) else ["shards"]


def _joined(shards: Path) -> object:
    from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there is no process group, which is meant
        dcp_to_torch_save(shards, Path(folder) / "whole.pt")
        return torch.load(Path(folder) / "whole.pt", weights_only=True)


def _equal(one: object, other: object) -> bool:
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_equal, one, other))
    if hasattr(one, "__dict__") and type(one) is type(other):
        return _equal(vars(one), vars(other))
    return bool(one == other)
