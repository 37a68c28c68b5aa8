"""How far two policies are apart on the sampled tokens: ratios, divergences, sequence statistics.

"Sequence" means trajectory: several rows with one number in `trajectory_B`. Axes: `B` rows, `T`
tokens.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from agentrl.core.types import Sum


def log_ratio(logp: torch.Tensor, other_logp: torch.Tensor) -> torch.Tensor:
    """`logp - other_logp`, clamped to +-20 so that its exponential stays finite."""
    return (logp - other_logp).clamp(-REACH, REACH)


REACH = 20.0
"""Log-ratios are clamped to this, so that their exponentials stay finite (nats)."""


def with_slope(value_BT: torch.Tensor, slope_BT: torch.Tensor, logp: torch.Tensor) -> torch.Tensor:
    """`value`, whose gradient in `logp` is `slope`; both are detached.

    A loss of tokens is a function of each one's logprob alone once the rest is detached, so that
    its slope is known: writing it down keeps one tensor for the backward pass instead of every
    step of the calculation.
    """
    return slope_BT * (logp - logp.detach()) + value_BT


def is_within(logp: torch.Tensor, other_logp: torch.Tensor) -> torch.Tensor:
    """Where `log_ratio` is not clamped, so that it has a slope."""
    return (logp - other_logp).abs_() <= REACH


def trajectory_sum(
    values_BT: torch.Tensor, mask: torch.Tensor, trajectory_B: torch.Tensor
) -> torch.Tensor:
    """`[B]`: for each row the masked sum over all rows of its trajectory."""
    sums_B = torch.where(mask, values_BT, 0.0).sum(-1)
    same_BB = (trajectory_B[:, None] == trajectory_B[None, :]).to(sums_B.dtype)
    return same_BB @ sums_B


def trajectory_mean(
    values_BT: torch.Tensor, mask: torch.Tensor, trajectory_B: torch.Tensor
) -> torch.Tensor:
    """`[B]`: for each row the mean over the masked tokens of its trajectory, 0 without any."""
    count_B = trajectory_sum(mask.to(values_BT.dtype), mask, trajectory_B)
    return trajectory_sum(values_BT, mask, trajectory_B) / count_B.clamp(min=1.0)


def covariance(advantages: torch.Tensor, logp: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """`[B,T]`: each token's `(A - mean A) (logp - mean logp)`, detached, with means over the masked
    tokens; off the mask it means nothing."""
    count = mask.sum().clamp(min=1)

    def centred(values: torch.Tensor) -> torch.Tensor:
        return values - torch.where(mask, values, 0.0).sum() / count

    return centred(advantages.detach()).mul_(centred(logp.detach()))


def largest(values_BT: torch.Tensor, count: int) -> torch.Tensor:
    """`[B,T]`: True at the `count` largest. Row by row first, since a sort of all of them together
    holds several times their memory."""
    of_row = values_BT.topk(min(count, values_BT.shape[-1]), dim=-1)
    chosen = of_row.values.flatten().topk(count).indices
    found = torch.zeros_like(values_BT, dtype=torch.bool)
    found[chosen // of_row.values.shape[-1], of_row.indices.flatten()[chosen]] = True
    return found


def k3_of(d: torch.Tensor) -> torch.Tensor:
    """`exp(-d) - 1 + d`, at most 10, for log-ratios `d` of the sampled tokens' own policy over
    another (Schulman 2020, "Approximating KL divergence"): unbiased and never negative."""
    return (torch.expm1(-d) + d).clamp(0.0, 10.0)


def total(values_BT: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The sum over masked tokens."""
    return torch.where(mask, values_BT, 0.0).sum()


def metrics_of(name: str, values_BT: dict[str, torch.Tensor], mask: torch.Tensor) -> dict[str, Sum]:
    """`name/key` for each: the mean over masked tokens, of a bool the share. One transfer from the
    device."""
    sums = [
        (value & mask).sum() if value.dtype is torch.bool else total(value.detach(), mask)
        for value in values_BT.values()
    ]
    *totals, count = torch.stack([one.double() for one in (*sums, mask.sum())]).tolist()
    return {
        f"{name}/{key}": Sum(total, count) for key, total in zip(values_BT, totals, strict=True)
    }


def drift_metrics(
    logp: torch.Tensor,
    old_logp: torch.Tensor,
    sampler_logp: torch.Tensor,
    ref_logp: torch.Tensor | None,
    mask: torch.Tensor,
) -> dict[str, Sum]:
    """How far trainer and sampler, live and old weights, and the reference are apart.

    `mismatch/`: `gap` mean `|old - sampler|`, `ratio` mean `exp(old - sampler)`, and the
    divergence KL(sampler || old) as `k1` and `k3`. `drift/`: the same estimates of KL(old || live)
    and, with a reference, of KL(live || reference). Nats per trained token.
    """
    off, moved = log_ratio(sampler_logp, old_logp), log_ratio(old_logp, logp)
    found = metrics_of(
        "mismatch",
        {"gap": off.abs(), "ratio": (-off).exp(), "k1": off, "k3": k3_of(off)},
        mask,
    )
    moves = {"old_k1": moved, "old_k3": k3_of(moved)}
    if ref_logp is not None:
        away = log_ratio(logp, ref_logp)
        moves |= {"ref_k1": away, "ref_k3": k3_of(away)}
    return found | metrics_of("drift", moves, mask)


@dataclass(frozen=True, slots=True)
class SampleSize(Sum):
    """Kish's effective sample size of weights as a share of their number,
    `(sum w)^2 / (n sum w^2)`: 1 for equal weights. Parts add up to that of the whole."""

    squares: float = 0.0

    def __add__(self, other: Sum) -> SampleSize:
        squares = self.squares + (other.squares if isinstance(other, SampleSize) else 0.0)
        return SampleSize(self.total + other.total, self.weight + other.weight, squares)

    @property
    def mean(self) -> float:
        """The share, 0 where all weights are; NaN where nothing was counted."""
        if not self.weight:
            return math.nan
        return self.total**2 / (self.weight * self.squares) if self.squares else 0.0


def weight_metrics(weights_BT: torch.Tensor, mask: torch.Tensor) -> dict[str, Sum]:
    """`mismatch/ess`: how many equal weights say as much as these, as a share of their number."""
    w = torch.where(mask, weights_BT, torch.zeros_like(weights_BT)).double()
    total, squares, count = torch.stack([w.sum(), w.square().sum(), mask.sum().double()]).tolist()
    return {"mismatch/ess": SampleSize(total, count, squares)}
