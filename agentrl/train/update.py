"""One optimiser step: from prepared rows to a gradient.

The loss of a micro-batch is `sum(L * w)` with weights that already hold the counts of all ranks, so
gradients of micro-batches and of ranks simply add up. Every rank runs as many micro-batches as the
one that has most, because ranks meet in them; a rank without rows fills in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch

from agentrl.core.errors import TrainingError
from agentrl.core.protocols import Parallel, Scorer
from agentrl.core.types import Sum, merge_metrics
from agentrl.train.objective import Objective
from agentrl.train.prepare import FILLER, TrainRow, as_many, collate, micro_batches


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
    """One optimiser step on this rank's rows of whole trajectories, and the others' on theirs.

    Args:
        module: what `parallel.wrap` returned.

    Returns:
        Metrics of all ranks, the same on each. Without a trained token on any rank there is no
        step.

    Raises:
        TrainingError: the loss or the gradient is not finite, on any rank.
    """
    lengths: Counter[tuple[int, int]] = Counter()
    for row in rows:
        lengths[row.key] += row.n_trained
    local = [sum(lengths.values()), sum(n > 0 for n in lengths.values())]
    local.append(sum(len(row.row.ids) for row in rows))
    n_tokens, n_trajectories, n_seen = map(int, parallel.total([float(n) for n in local]))
    live = [r for r in rows if r.n_trained and (objective.touches_idle_rows or not r.is_idle)]
    parts = micro_batches(live, budget, scorer, whole_groups=objective.whole_groups)
    batches = as_many(parts, parallel)
    if not batches:
        return {"loss/idle_steps": Sum(1.0)}
    (n_batches,) = parallel.total([float(sum(part != [FILLER] for part in batches))])
    lengths[FILLER.key] = 1  # something to divide by
    device = next(module.parameters()).device
    module.train()
    found, broken = [], ""
    try:
        for i, part in enumerate(batches):
            is_last = i == len(batches) - 1
            batch = collate(
                part,
                lengths=lengths,
                n_tokens=n_tokens,
                n_trajectories=n_trajectories,
                n_batches=int(n_batches),
                device=device,
            )
            with parallel.micro_batch(is_last=is_last):
                scores = scorer.score(
                    module, [r.row for r in part], entropy_grad=objective.entropy_grad
                )
                loss, metrics = objective(batch, scores)
                if not broken and not torch.isfinite(loss):
                    broken = f"{float(loss.detach())} at micro-batch {i + 1} of {len(batches)}"
                if is_last:
                    agree(parallel, broken)
                parallel.backward(loss)
            if part != [FILLER]:
                found.append({**metrics, **scores.metrics})
        norm = parallel.step(grad_clip)
    finally:
        for weight in module.parameters():
            weight.grad = None
        module.eval()
    merged = merge_metrics(parallel.exchange(merge_metrics(found)))
    policy = Sum(merged["loss/policy"].total)
    trained = Sum(float(n_tokens), float(n_seen))
    return {
        **merged,
        "loss/policy": policy,
        "loss/grad_norm": Sum(norm),
        "loss/trained_share": trained,
    }


def agree(parallel: Parallel, broken: str) -> None:
    """All ranks go on, or none: a rank that stopped alone would leave the others waiting.

    Raises:
        TrainingError: the loss was not finite on this rank or on another.
    """
    if not any(parallel.largest([float(bool(broken))])):
        return
    told = parallel.exchange(broken)
    rank, what = next((rank, text) for rank, text in enumerate(told) if text)
    where = f" on rank {rank}" if parallel.world > 1 else ""
    raise TrainingError(
        f"the loss is {what}{where}; the step was not taken. Lower optim.lr, or look for "
        "non-finite rewards"
    )
