"""One rank of a distributed test: `python -m support.ranks PLAN FOLDER BACKEND [SETTING=VALUE...]`.

All cases of a backend run in one launch, because imports take longer than the cases. Whatever a
rank finds goes to `FOLDER/rank-N.json`; the tests that started the launch judge it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file

from agentrl.core.config import Config
from agentrl.core.loading import load
from agentrl.core.protocols import Parallel
from agentrl.core.types import Json
from support import parity


def run_parity(parallel: Parallel, fresh: Callable[[], Parallel], folder: Path) -> dict[str, Json]:
    """Every case's metrics; rank 0 leaves the weights."""
    found: dict[str, Json] = {}
    for number, case in enumerate(parity.CASES):
        outcome = parity.run_case(case, fresh())
        state = outcome.weights
        parity.build(case).load_state_dict(state, strict=True)
        if parallel.rank == 0:
            # Tied weights have two names and one storage, which safetensors does not take.
            whole = {name: tensor.clone().contiguous() for name, tensor in state.items()}
            save_file(whole, folder / f"weights-{number}.safetensors")
        found[case.name] = [
            {key: [value.total, value.weight] for key, value in step.items()}
            for step in outcome.metrics
        ]
    return found


PLANS = {"parity": run_parity}


def main(plan: str, folder: Path, backend: str, *settings: str) -> None:
    def fresh() -> Parallel:
        """The backend again, without what it held, in the same process group."""
        parallel = load(Config, None, [f"parallel={backend}", *settings]).parallel
        parallel.start()
        return parallel

    parallel = fresh()
    try:
        found = PLANS[plan](parallel, fresh, folder)
        (folder / f"rank-{parallel.rank}.json").write_text(json.dumps(found))
    finally:
        parallel.close()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:])
