"""Several corrections at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

import torch

from agentrl.core.errors import ConfigError
from agentrl.core.protocols import Mismatch
from agentrl.core.registry import register
from agentrl.core.shapes import DefaultPart, Slot
from agentrl.core.types import Sum


def _tis_and_geometric() -> tuple[Any, ...]:
    return DefaultPart("mismatch", "tis")(), DefaultPart("mismatch", "geometric")()


@register("mismatch", "product")
@dataclass(frozen=True, kw_only=True)
class Product:
    """The product of other corrections' weights: rejection of far trajectories and truncation of
    what stays, say. Shares of rejected tokens are averaged over the parts."""

    parts: tuple[Annotated[Mismatch, Slot("mismatch")], ...] = field(
        default_factory=_tis_and_geometric
    )
    """The corrections: a list."""

    def __post_init__(self) -> None:
        if not self.parts:
            raise ConfigError("parts: expected one correction or more, such as [tis, geometric]")

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
        """The weights, and the metrics of all parts."""
        weights = torch.ones_like(old_logp)
        metrics: dict[str, Sum] = {}
        for part in self.parts:
            found, said = part(
                old_logp,
                sampler_logp,
                mask,
                logp=logp,
                advantages=advantages,
                trajectory_B=trajectory_B,
            )
            weights = weights * found
            for key, value in said.items():
                metrics[key] = metrics[key] + value if key in metrics else value
        return weights, metrics
