"""The settings of a critic (`train/critic.py`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Gt


@dataclass(frozen=True, kw_only=True)
class Critic:
    """A model that says what each state is worth: a copy of the policy's trunk with a value head.

    It is as large as the policy (under LoRA only its adapters and its head are trained), and an
    advantage that needs values does not bring it by itself.
    """

    lr: Annotated[float, Gt(0)] = 1e-5
    """Learning rate (AdamW; above 0), constant. Often some times the policy's."""
    epochs: Annotated[int, Ge(1)] = 1
    """Passes over the trajectories of a step, each cut like the policy's updates (1 or more)."""
    clip: Annotated[float, Gt(0)] = 0.5
    """How far from its value before the step a prediction may gain by moving (above 0, in units of
    the reward)."""
    grad_clip: Annotated[float, Gt(0)] = 1.0
    """Largest norm of its gradient (above 0)."""
    warmup: Annotated[int, Ge(0)] = 0
    """First steps in which only the critic learns (0 or more)."""
