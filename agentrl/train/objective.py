"""What a step minimises: surrogate, length normalisation, KL, mismatch correction, in one sum.

Axes: `B` rows, `T` tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from agentrl.core.errors import TrainingError
from agentrl.core.protocols import Aggregate, Kl, Loss, Mismatch
from agentrl.core.tensors import Batch, Scores
from agentrl.core.types import Sum


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
