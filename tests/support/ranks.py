"""One rank of a distributed test: `python -m support.ranks PLANS FOLDER BACKEND [KEY=VALUE...]`,
and the same again after `--` for another setting of the backend.

All cases of a backend run in one launch, because imports take longer than the cases. Whatever a
rank finds goes to `FOLDER/PLAN-RANK-of-WORLD.json`; the tests that started the launch judge it.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import cast

import torch
import yaml
from safetensors.torch import load_file, save_file

from agentrl.core import registry
from agentrl.core.errors import ConfigError, DeadlineError, TrainingError
from agentrl.core.protocols import Parallel
from agentrl.core.types import Json
from agentrl.train.score import Padded
from support import parity

Fresh = Callable[[], Parallel]
"""The backend again, without what it held, in the same process group."""

RESUMED = tuple(case for case in parity.CASES if case.optimiser == "adamw")
BEFORE, AFTER = range(3), range(3, 5)
"""Steps before and after the checkpoint of a resumed case."""


def run_parity(fresh: Fresh, folder: Path) -> dict[str, Json]:
    """Every case's metrics, or why it was refused; rank 0 leaves the weights."""
    found: dict[str, Json] = {}
    for number, case in enumerate(parity.CASES):
        parallel = fresh()
        try:
            outcome = parity.run_case(case, parallel)
        except ConfigError as error:
            found[case.name] = str(error)
            continue
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


def run_broken(fresh: Fresh, folder: Path) -> dict[str, Json]:
    """What each rank raises when the loss of rank 1 alone is not a number, and whether the weights
    and the next step are as if it had not happened."""
    parallel, case = fresh(), parity.CASES[1]
    module = parallel.wrap(parity.build(case), parity.optimiser_of(case))
    before = apart(parallel.gather())
    rows = parity.share_of(case, parity.rows_of_step(0), parallel)
    if parallel.rank == 1:
        rows[0] = parity.with_advantage(rows[0], math.nan)
    try:
        parity.one_update(case, rows, parallel, module)
        raised = ""
    except TrainingError as error:
        raised = str(error)
    after = parallel.gather()
    return {
        "raised": raised,
        "changed": any(not torch.equal(after[name], tensor) for name, tensor in before.items()),
    }


def run_lost(fresh: Fresh, folder: Path) -> dict[str, Json]:
    """What rank 0 raises, and after how many seconds, when rank 1 ends in the middle of a step:
    between the forward pass and the exchange of gradients."""
    parallel, case = fresh(), parity.CASES[0]
    module = parallel.wrap(parity.build(case), parity.optimiser_of(case))
    parity.train_steps(case, parallel, module, range(1))
    began = time.monotonic()
    try:
        with parallel.micro_batch(is_last=True):
            row = parity.share_of(case, parity.rows_of_step(1), parallel)[0].row
            loss = Padded().score(module, [row]).logp_BT.sum()
            if parallel.rank == 1:
                vanish()
            parallel.backward(loss)
        parallel.step(1.0)
    except DeadlineError as error:
        return {"raised": str(error), "seconds": time.monotonic() - began}
    return {"raised": "", "seconds": time.monotonic() - began}


def vanish() -> None:
    """Ends this process at once, or lets it hang, as the test asks."""
    if os.environ.get("AGENTRL_TEST_HANG"):
        time.sleep(600)
    os._exit(7)


PLANS = {
    "parity": run_parity,
    "resume": run_resume,
    "elsewhere": run_elsewhere,
    "broken": run_broken,
    "lost": run_lost,
}


def run(plans: str, folder: Path, backend: str, *settings: str) -> Parallel:
    """The plans `a,b`."""
    chosen = {key: yaml.safe_load(value) for key, value in (s.split("=") for s in settings)}

    def fresh() -> Parallel:
        parallel = cast("Parallel", registry.find("parallel", backend)(**chosen))
        parallel.start()
        return parallel

    parallel = fresh()
    for plan in plans.split(","):
        found = PLANS[plan](fresh, folder)
        file = folder / f"{plan}-{parallel.rank}-of-{parallel.world}.json"
        file.write_text(json.dumps(found))
    return parallel


def main(words: Sequence[str]) -> None:
    """Every setting in turn; the first one's process group serves all of them."""
    parts = [list(part) for is_mark, part in groupby(words, lambda w: w == "--") if not is_mark]
    first, *_ = [run(part[0], Path(part[1]), *part[2:]) for part in parts]
    first.close()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(sys.argv[1:])
