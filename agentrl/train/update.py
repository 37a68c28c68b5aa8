"""One optimiser step: from prepared rows to a gradient.

The loss of a micro-batch is `sum(L * w)` with weights that already hold the global counts, so
gradients of micro-batches simply add up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from agentrl.core.errors import TrainingError
from agentrl.core.protocols import Aggregate, Kl, Loss, Mismatch, Parallel, Scorer
from agentrl.core.tensors import Batch, Scores
from agentrl.core.types import Sum, merge_metrics
from agentrl.train.prepare import TrainRow, collate, micro_batches


@dataclass(frozen=True, kw_only=True)
class Objective:
    """What is minimised: surrogate, length normalisation, KL and mismatch correction."""

    loss: Loss
    aggregate: Aggregate
    kl: Kl | None = None
    mismatch: Mismatch | None = None

    def __call__(self, batch: Batch, scores: Scores) -> tuple[torch.Tensor, dict[str, Sum]]:
        """The batch's share of the step's loss (a scalar with gradient), and metrics."""
        mask = batch.mask_BT
        logp = scores.logp_BT
        old = logp.detach() if batch.old_logprobs_BT is None else batch.old_logprobs_BT
        out = self.loss(logp, old, batch.advantages_BT, mask, trajectory_B=batch.trajectory_B)
        per_token, metrics = out.loss_BT, dict(out.metrics)
        count = float(mask.sum())
        if self.mismatch is not None:
            weights, found = self.mismatch(old, batch.sampler_logprobs_BT, mask)
            per_token = per_token * weights
            metrics.update(found)
        if self.kl is not None:
            if batch.ref_logprobs_BT is None:
                raise TrainingError("kl: the batch has no reference logprobs")
            penalty = self.kl(logp, batch.ref_logprobs_BT)
            per_token = per_token + penalty
            metrics["loss/kl"] = Sum(float((penalty.detach() * mask).sum()) / self.kl.beta, count)
        weight_B = self.aggregate(batch.lengths_B, batch.n_tokens, batch.n_trajectories)
        loss = (torch.where(mask, per_token, 0.0) * weight_B[:, None]).sum()
        gap = ((old - batch.sampler_logprobs_BT).abs() * mask).sum()
        metrics["loss/entropy"] = Sum(float((scores.entropy_BT.detach() * mask).sum()), count)
        metrics["mismatch/gap"] = Sum(float(gap), count)
        metrics["loss/policy"] = Sum(float(loss.detach()))
        return loss, metrics


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
            loss, metrics = objective(batch, scorer.score(module, [r.row for r in part]))
            if not torch.isfinite(loss):
                raise TrainingError(
                    f"the loss is {float(loss.detach())} at micro-batch {i + 1} of {len(batches)}; "
                    "the step was not taken. Lower optim.lr, or look for non-finite rewards"
                )
            parallel.backward(loss, is_last=i == len(batches) - 1)
            parts.append(metrics)
        norm = parallel.step(grad_clip)
    finally:
        module.zero_grad(set_to_none=True)
        module.eval()
    policy = Sum(sum(p["loss/policy"].total for p in parts))
    return {**merge_metrics(parts), "loss/policy": policy, "loss/grad_norm": Sum(norm)}
