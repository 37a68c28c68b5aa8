"""Leave bad trajectories alone once the policy has moved away from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Gt

from agentrl.algo.drift import metrics_of, trajectory_mean
from agentrl.core.registry import register
from agentrl.core.types import Sum


@register("mismatch", "off_policy")
@dataclass(frozen=True, kw_only=True)
class OffPolicyMask:
    """0 for tokens with A < 0 of trajectories whose mean `sampler_logp - logp` exceeds `delta`, the
    rest weighs 1 (DeepSeek-V3.2, arXiv 2512.02556, sec. 3.1, "Off-policy sequence masking").

    It looks at the live weights, so it also counts what this step's earlier updates changed.
    """

    delta: Annotated[float, Gt(0)] = 0.5
    """Largest mean log-ratio at which a trajectory with A < 0 is trained (> 0, nats per token)."""

    def __call__(
        self,
        old_logp: torch.Tensor,
        sampler_logp: torch.Tensor,
        mask: torch.Tensor,
        *,
        logp: torch.Tensor,
        advantages: torch.Tensor,
        trajectory_B: torch.Tensor,
    ) -> tuple[torch.Tensor, Mapping[str, Sum]]:
        """Weights 0 or 1, and the share of tokens that were left out."""
        d = (sampler_logp - logp).detach()
        is_far_B = trajectory_mean(d, mask, trajectory_B) > self.delta
        is_out_BT = is_far_B[:, None] & (advantages < 0)
        metrics = metrics_of("mismatch", {"rejected": is_out_BT.to(d.dtype)}, mask)
        return torch.ones_like(d).masked_fill(is_out_BT & mask, 0.0), metrics
