"""The one torch module of core: what scorers return, what losses take, what a step trains on.

Axes: `B` rows, `T` tokens. Column `t` of every tensor speaks of token `t` of the row; its logprob
is that of `ids[t]` given `ids[:t]`, so column 0 is never trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from agentrl.core.types import Sum


@dataclass(frozen=True, kw_only=True)
class Scores:
    """What a scorer says of rows, right-padded to `[B,T]`, in row order, with gradient.

    `logp_BT` are tempered log-probabilities (0 off the mask) in float32, `entropy_BT` (nats;
    detached unless asked for) those of the tempered distributions, `value_BT` a critic's or None.
    """

    logp_BT: torch.Tensor
    entropy_BT: torch.Tensor
    value_BT: torch.Tensor | None = None
    metrics: Mapping[str, Sum] = field(default_factory=dict)
    """What to log of the scoring itself."""


@dataclass(frozen=True, kw_only=True)
class LossOut:
    """Per-token loss `[B,T]` (to be minimised) and what to log of it."""

    loss_BT: torch.Tensor
    metrics: Mapping[str, Sum] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Siblings:
    """Whole trajectories (`N`) of a batch that holds their whole groups, for a loss that compares
    them. Only those with a trained token are there."""

    margins_N: torch.Tensor
    """Sum of `logp - ref_logp` over the trained tokens, in all rows, with gradient (nats)."""
    rewards_N: torch.Tensor
    """The mean advantage of these tokens, detached: the trajectory's own where the estimator gives
    one. Only differences between siblings count, so a baseline does nothing."""
    lengths_N: torch.Tensor
    """How many tokens these are."""
    group_N: torch.Tensor
    """Equal numbers: siblings."""


@dataclass(frozen=True, kw_only=True)
class Counts:
    """What losses are divided by. All but `local_tokens` count the whole step over all ranks."""

    tokens: int
    """Trained tokens."""
    trajectories: int
    """Trajectories with a trained token."""
    local_tokens: int
    """Trained tokens of this micro-batch."""
    batches: int
    """Micro-batches with a trained token: a matter of memory, so only of use for what is
    meant to depend on the cut."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Rows of whole trajectories, right-padded. `n_tokens`, `n_trajectories` and `n_batches` count
    the whole step over all ranks, so that a batch may be cut anywhere between trajectories."""

    ids_BT: torch.Tensor
    mask_BT: torch.Tensor
    old_logprobs_BT: torch.Tensor | None
    sampler_logprobs_BT: torch.Tensor
    ref_logprobs_BT: torch.Tensor | None
    advantages_BT: torch.Tensor
    turn_BT: torch.Tensor
    temperature_B: torch.Tensor
    trajectory_B: torch.Tensor
    group_B: torch.Tensor
    lengths_B: torch.Tensor
    n_tokens: int
    n_trajectories: int
    n_batches: int = 1

    @property
    def counts(self) -> Counts:
        """What an aggregator divides by."""
        return Counts(
            tokens=self.n_tokens,
            trajectories=self.n_trajectories,
            local_tokens=int(self.mask_BT.sum()),
            batches=self.n_batches,
        )
