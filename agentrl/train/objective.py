"""What a step minimises: surrogate, length normalisation, KL, entropy, mismatch, in one sum.

Axes: `B` rows, `T` tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from agentrl.algo.drift import drift_metrics, log_ratio, weight_metrics
from agentrl.core.errors import TrainingError
from agentrl.core.protocols import Aggregate, Entropy, GroupLoss, Kl, Loss, Mismatch
from agentrl.core.tensors import Batch, LossOut, Scores, Siblings
from agentrl.core.types import Sum


@dataclass(frozen=True, kw_only=True)
class Objective:
    """What is minimised: the surrogate and the KL term, weighed by the aggregator, less
    `entropy.coef` times the mean entropy of the step's tokens."""

    loss: Loss | GroupLoss
    aggregate: Aggregate
    kl: Kl | None = None
    mismatch: Mismatch | None = None
    entropy: Entropy | None = None

    @property
    def entropy_grad(self) -> bool:
        """Whether scores must carry the gradient of the entropy."""
        return self.entropy is not None and self.entropy.coef > 0

    @property
    def touches_idle_rows(self) -> bool:
        """Whether rows without any advantage have a gradient all the same."""
        return self._has_kl or self.entropy_grad or self.whole_groups

    @property
    def whole_groups(self) -> bool:
        """Whether a batch must hold all trained siblings of a trajectory."""
        return isinstance(self.loss, GroupLoss)

    @property
    def _has_kl(self) -> bool:
        return self.kl is not None and self.kl.placement == "loss"

    def __call__(self, batch: Batch, scores: Scores) -> tuple[torch.Tensor, dict[str, Sum]]:
        """The batch's share of the step's loss (a scalar with gradient), and metrics.

        Raises:
            TrainingError: a KL in the loss, or a loss that compares siblings, and the batch has no
                reference logprobs.
        """
        mask, logp, ref = batch.mask_BT, scores.logp_BT, batch.ref_logprobs_BT
        old = logp.detach() if batch.old_logprobs_BT is None else batch.old_logprobs_BT
        if isinstance(self.loss, GroupLoss):
            out = compared(self.loss, batch, logp)
        else:
            out = self.loss(logp, old, batch.advantages_BT, mask, trajectory_B=batch.trajectory_B)
        per_token, metrics = out.loss_BT, dict(out.metrics)
        count = float(mask.sum())
        if self.mismatch is not None:
            weights, found = self.mismatch(
                old,
                batch.sampler_logprobs_BT,
                mask,
                logp=logp.detach(),
                advantages=batch.advantages_BT,
                trajectory_B=batch.trajectory_B,
            )
            per_token = per_token * weights
            metrics |= found
        else:
            weights = log_ratio(old, batch.sampler_logprobs_BT).exp()
        metrics |= weight_metrics(weights, mask)
        if self.kl is not None and self._has_kl:
            if ref is None:
                raise TrainingError("kl: the batch has no reference logprobs")
            penalty = self.kl(logp, ref, old)
            per_token = per_token + penalty
            metrics["loss/kl"] = Sum(float((penalty.detach() * mask).sum()) / self.kl.beta, count)
        weight_B = self.aggregate(batch.lengths_B, batch.counts)
        loss = (torch.where(mask, per_token, 0.0) * weight_B[:, None]).sum()
        entropy = torch.where(mask, scores.entropy_BT, 0.0).sum()
        metrics["loss/entropy"] = Sum(float(entropy.detach()), count)
        if self.entropy is not None:
            metrics["loss/entropy_coef"] = Sum(self.entropy.coef)
        if self.entropy is not None and self.entropy_grad:
            loss = loss - self.entropy.coef * entropy / max(batch.n_tokens, 1)
        metrics |= drift_metrics(logp.detach(), old, batch.sampler_logprobs_BT, ref, mask)
        metrics["loss/policy"] = Sum(float(loss.detach()))
        return loss, metrics


def compared(loss: GroupLoss, batch: Batch, logp_BT: torch.Tensor) -> LossOut:
    """The loss of each trajectory on each of its tokens, so that `seq_mean_token_mean` averages
    over trajectories.

    Raises:
        TrainingError: the batch has no reference logprobs.
    """
    if batch.ref_logprobs_BT is None:
        raise TrainingError("loss: it compares siblings, and the batch has no reference logprobs")
    mask = batch.mask_BT
    _, number_B = batch.trajectory_B.unique(return_inverse=True)

    def total(values_BT: torch.Tensor) -> torch.Tensor:
        sums_B = torch.where(mask, values_BT, torch.zeros_like(values_BT)).sum(-1)
        return sums_B.new_zeros(len(mask)).index_add(0, number_B, sums_B)

    lengths_N = total(mask.double())
    group_N = batch.group_B.new_zeros(len(mask)).index_copy(0, number_B, batch.group_B)
    is_there = lengths_N > 0
    siblings = Siblings(
        margins_N=total(logp_BT - batch.ref_logprobs_BT)[is_there],
        # in float64, where the mean of equal numbers is that number: siblings may be tied
        rewards_N=(total(batch.advantages_BT.double()) / lengths_N.clamp(min=1.0))[is_there],
        lengths_N=lengths_N[is_there],
        group_N=group_N[is_there],
    )
    losses_N, metrics = loss(siblings)
    spread_N = losses_N.new_zeros(len(mask)).masked_scatter(is_there, losses_N)
    return LossOut(loss_BT=spread_N[number_B][:, None].expand_as(logp_BT), metrics=metrics)
