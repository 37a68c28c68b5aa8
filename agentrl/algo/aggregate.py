"""Length normalisation: how much each token of a row weighs in the step's loss.

A weight depends only on its trajectory's length and on counts of the whole step, so the summed loss
does not depend on how the step was cut into micro-batches or ranks. `local_token_mean` is the one
exception. "Sequence" means trajectory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge

from agentrl.core.registry import register
from agentrl.core.tensors import Counts


@register("aggregate", "token_mean")
@dataclass(frozen=True, kw_only=True)
class TokenMean:
    """Every trained token of the step weighs the same (DAPO, arXiv 2503.14476, eq. 8)."""

    def __call__(self, lengths_B: torch.Tensor, counts: Counts) -> torch.Tensor:
        """`1 / tokens`."""
        return torch.full_like(lengths_B, 1.0 / max(counts.tokens, 1))


@register("aggregate", "local_token_mean")
@dataclass(frozen=True, kw_only=True)
class LocalTokenMean:
    """The mean over micro-batches of their token means (TRL's `bnpo`).

    The step depends on how it is cut: on `optim.tokens_per_microbatch` and the number of processes.
    """

    depends_on_cut: ClassVar[bool] = True

    def __call__(self, lengths_B: torch.Tensor, counts: Counts) -> torch.Tensor:
        """`1 / (tokens of this micro-batch * number of micro-batches)`."""
        return torch.full_like(lengths_B, 1.0 / (max(counts.local_tokens, 1) * counts.batches))


@register("aggregate", "seq_mean_token_mean")
@dataclass(frozen=True, kw_only=True)
class SequenceMeanTokenMean:
    """Every trajectory weighs the same, and so does every token in it (arXiv 2402.03300, eq. 3)."""

    def __call__(self, lengths_B: torch.Tensor, counts: Counts) -> torch.Tensor:
        """`1 / (length * trajectories)`."""
        return 1.0 / (lengths_B.clamp(min=1.0) * max(counts.trajectories, 1))


@register("aggregate", "seq_mean_token_sum")
@dataclass(frozen=True, kw_only=True)
class SequenceMeanTokenSum:
    """The mean over trajectories of their token sums: a trajectory is one action, whose logprob is
    the sum of its tokens' (RLOO, arXiv 2402.14740). Longer ones weigh more."""

    def __call__(self, lengths_B: torch.Tensor, counts: Counts) -> torch.Tensor:
        """`1 / trajectories`."""
        return torch.full_like(lengths_B, 1.0 / max(counts.trajectories, 1))


@register("aggregate", "constant")
@dataclass(frozen=True, kw_only=True)
class Constant:
    """Token sums over a fixed length: no bias for length (Dr. GRPO, arXiv 2503.20783, sec. 3.3)."""

    length: Annotated[int, Ge(1)] = 512
    """What each trajectory's sum is divided by (tokens)."""

    def __call__(self, lengths_B: torch.Tensor, counts: Counts) -> torch.Tensor:
        """`1 / (length * trajectories)` with the configured length."""
        return torch.full_like(lengths_B, 1.0 / (self.length * max(counts.trajectories, 1)))
