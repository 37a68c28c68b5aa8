"""One rank of a distributed test: `python -m support.ranks PLANS FOLDER BACKEND [KEY=VALUE...]`.

All cases of a backend run in one launch, because imports take longer than the cases. Whatever a
rank finds goes to `FOLDER/PLAN-RANK-of-WORLD.json`; the tests that started the launch judge it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from agentrl.core.config import Config
from agentrl.core.loading import load
from agentrl.core.protocols import Parallel
from agentrl.core.types import Json
from support import parity

Fresh = Callable[[], Parallel]
"""The backend again, without what it held, in the same process group."""

RESUMED = tuple(case for case in parity.CASES if case.optimiser == "adamw")
BEFORE, AFTER = range(3), range(3, 5)
"""Steps before and after the checkpoint of a resumed case."""


def run_parity(fresh: Fresh, folder: Path) -> dict[str, Json]:
    """Every case's metrics; rank 0 leaves the weights."""
    found: dict[str, Json] = {}
    for number, case in enumerate(parity.CASES):
        parallel = fresh()
        outcome = parity.run_case(case, parallel)
        parity.build(case).load_state_dict(outcome.weights, strict=True)
        if parallel.rank == 0:
            save_file(apart(outcome.weights), folder / f"weights-{number}.safetensors")
        found[case.name] = [
            {key: [value.total, value.weight] for key, value in step.items()}
            for step in outcome.metrics
        ]
    return found


def run_resume(fresh: Fresh, folder: Path) -> dict[str, Json]:
    """Save after three steps, take two more, and again the two from the checkpoint; the largest
    difference of any weight. Rank 0 leaves the last weights beside the checkpoint."""
    found: dict[str, Json] = {}
    for number, case in enumerate(RESUMED):
        parallel = fresh()
        checkpoint = folder / f"saved-{number}"
        checkpoint.mkdir(exist_ok=True)
        module = parallel.wrap(parity.build(case), parity.optimiser_of(case))
        parity.train_steps(case, parallel, module, BEFORE)
        parallel.save(checkpoint)
        if parallel.rank == 0:
            save_file(apart(parallel.gather()), checkpoint / "exported.safetensors")
        else:
            parallel.gather()
        parallel.total([0.0])  # the files are there
        parity.train_steps(case, parallel, module, AFTER)
        last = apart(parallel.gather())
        if parallel.rank == 0:
            save_file(last, checkpoint / "last.safetensors")
        found[case.name] = resumed_gap(fresh(), case, checkpoint, last)
    return found


def run_elsewhere(fresh: Fresh, folder: Path) -> dict[str, Json]:
    """Two steps from the checkpoints of another launch."""
    return {
        case.name: resumed_gap(
            fresh(), case, folder / f"saved-{n}", load_file(folder / f"saved-{n}/last.safetensors")
        )
        for n, case in enumerate(RESUMED)
    }


def resumed_gap(
    parallel: Parallel, case: parity.Case, checkpoint: Path, expected: Mapping[str, torch.Tensor]
) -> float:
    """The largest difference of any weight after the steps that follow a checkpoint."""
    module = parity.build(case)
    if not case.lora:  # an exported folder gives back all weights but those of an adapter
        module.load_state_dict(load_file(checkpoint / "exported.safetensors"))
    wrapped = parallel.wrap(module, parity.optimiser_of(case))
    parallel.load(checkpoint)
    parity.train_steps(case, parallel, wrapped, AFTER)
    last = parallel.gather()
    return max(float((last[name] - tensor).abs().max()) for name, tensor in expected.items())


def apart(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Copies: tied weights have two names and one storage, which safetensors does not take."""
    return {name: tensor.detach().clone().contiguous() for name, tensor in state.items()}


PLANS = {"parity": run_parity, "resume": run_resume, "elsewhere": run_elsewhere}


def main(plans: str, folder: Path, backend: str, *settings: str) -> None:
    """The plans `a,b`, in one process group."""

    def fresh() -> Parallel:
        parallel = load(Config, None, [f"parallel={backend}", *settings]).parallel
        parallel.start()
        return parallel

    parallel = fresh()
    try:
        for plan in plans.split(","):
            found = PLANS[plan](fresh, folder)
            (folder / f"{plan}-{parallel.rank}-of-{parallel.world}.json").write_text(
                json.dumps(found)
            )
    finally:
        parallel.close()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:])
