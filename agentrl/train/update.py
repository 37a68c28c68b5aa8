"""One optimiser step: from prepared rows to a gradient.

The loss of a micro-batch is `sum(L * w)` with weights that already hold the global counts, so
gradients of micro-batches simply add up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch

from agentrl.core.errors import TrainingError
from agentrl.core.protocols import Parallel, Scorer
from agentrl.core.types import Sum, merge_metrics
from agentrl.train.objective import Objective
from agentrl.train.prepare import TrainRow, collate, micro_batches


def update(
    rows: Sequence[TrainRow],
    *,
    objective: Objective,
    scorer: Scorer,
    parallel: Parallel,
    module: torch.nn.Module,
    budget: int,
    grad_clip: float,
) -> dict[str, Sum]:
    """One optimiser step on rows of whole trajectories; without a trained token, no step.

    Raises:
        TrainingError: the loss or the gradient is not finite.
    """
    lengths: Counter[tuple[int, int]] = Counter()
    for row in rows:
        lengths[row.key] += row.n_trained
    local = [float(sum(lengths.values())), float(sum(n > 0 for n in lengths.values()))]
    n_tokens, n_trajectories = (int(total) for total in parallel.total(local))
    live = [r for r in rows if r.n_trained and not (objective.kl is None and r.is_idle)]
    if not live:
        return {"loss/idle_steps": Sum(1.0)}
    device = next(module.parameters()).device
    module.train()
    parts = []
    batches = micro_batches(live, budget)
    try:
        for i, part in enumerate(batches):
            batch = collate(
                part,
                lengths=lengths,
                n_tokens=n_tokens,
                n_trajectories=n_trajectories,
                device=device,
            )
            with parallel.micro_batch(is_last=i == len(batches) - 1):
                loss, metrics = objective(batch, scorer.score(module, [r.row for r in part]))
                if not torch.isfinite(loss):
                    raise TrainingError(
                        f"the loss is {float(loss.detach())} at micro-batch {i + 1} of "
                        f"{len(batches)}; the step was not taken. Lower optim.lr, or look for "
                        "non-finite rewards"
                    )
                parallel.backward(loss)
            parts.append(metrics)
        norm = parallel.step(grad_clip)
    finally:
        module.zero_grad(set_to_none=True)
        module.eval()
    policy = Sum(sum(p["loss/policy"].total for p in parts))
    return {**merge_metrics(parts), "loss/policy": policy, "loss/grad_norm": Sum(norm)}
