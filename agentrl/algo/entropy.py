"""Entropy control: a bonus in the loss, its controller, a controller of the sampling temperature,
and the mask of high-entropy tokens.

Entropies are those of the tempered distributions that were sampled from (nats), H_T = mean over
sampled tokens of Entropy(softmax(z / T)).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Protocol, runtime_checkable

import torch
from annotated_types import Ge, Gt, Le, Lt

from agentrl.core.errors import ConfigError
from agentrl.core.registry import register
from agentrl.core.types import Json

Share = Annotated[float, Gt(0), Le(1)]


@runtime_checkable
class Tempering(Protocol):
    """An entropy control that also says at which temperature a step samples."""

    def temper(self, start: float) -> float:
        """The temperature of the step that comes; `start` is that of the config."""
        ...


def is_tempering(entropy: object) -> bool:
    """Whether steps are sampled at temperatures of their own."""
    return isinstance(entropy, Tempering)


def tempered(entropy: object, start: float) -> float:
    """The temperature of the step that comes."""
    return entropy.temper(start) if isinstance(entropy, Tempering) else start


@register("entropy", "bonus")
@dataclass(frozen=True, kw_only=True)
class Bonus:
    """`-coef * mean_t H_t` in the loss (Mnih et al. 2016, arXiv 1602.01783, sec. 4)."""

    coef: Annotated[float, Ge(0)] = 0.0
    """Coefficient of the mean entropy (0 or more; 0 adds nothing)."""
    top: Share = 1.0
    """Share of the step's trained tokens, those with the highest entropy, that the surrogate trains
    (Wang et al. 2025, arXiv 2506.01939, "80/20" at 0.2); the rest stays in the counts."""

    def observe(self, entropy: float) -> None:
        """A constant looks at nothing."""


@register("entropy", "adaptive")
@dataclass(kw_only=True)
class Adaptive:
    """A bonus that holds the entropy up: after each step its coefficient rises by `delta` if H was
    at most `target`, else falls by as much, within `low..high`; it is applied only after a step
    with H at most `target` (Skywork-OR1, arXiv 2505.22312)."""

    target: Annotated[float, Gt(0)] = 0.2
    """Entropy to hold (> 0, nats per token); set it near what early training shows."""
    start: Annotated[float, Ge(0)] = 0.0
    """The first coefficient (0 or more)."""
    delta: Annotated[float, Gt(0)] = 0.005
    """How much the coefficient changes after a step (> 0)."""
    low: Annotated[float, Ge(0)] = 0.0
    """Smallest coefficient (0 or more)."""
    high: Annotated[float, Gt(0)] = 1.0
    """Largest coefficient (> 0)."""
    top: Share = 1.0
    """As for `bonus`: share of tokens with the highest entropy that the surrogate trains."""
    _held: float = field(init=False, repr=False, compare=False)
    _last: float = field(init=False, repr=False, compare=False, default=math.inf)

    def __post_init__(self) -> None:
        if not self.low <= self.start <= self.high:
            raise ConfigError(
                f"start: must be within low={self.low} and high={self.high} (got {self.start})"
            )
        self._held = self.start

    @property
    def coef(self) -> float:
        """What is applied: the held coefficient, or 0 while the entropy is above the target."""
        return self._held if self._last <= self.target else 0.0

    def observe(self, entropy: float) -> None:
        """Adapt to the entropy of the step before. NaN (nothing was trained) changes nothing."""
        if math.isnan(entropy):
            return
        change = self.delta if entropy <= self.target else -self.delta
        self._held = min(self.high, max(self.low, self._held + change))
        self._last = entropy

    def state(self) -> Json:
        """The held coefficient and the entropy seen last (None before the first step)."""
        return {"coef": self._held, "entropy": self._last if math.isfinite(self._last) else None}

    def restore(self, state: Json) -> None:
        """Go on from `state()`.

        Raises:
            ConfigError: it is something else.
        """
        held = state.get("coef") if isinstance(state, dict) else None
        last = state.get("entropy") if isinstance(state, dict) else None
        if not isinstance(held, float | int) or not isinstance(last, float | int | None):
            raise ConfigError(
                f"entropy: expected the state of an adaptive bonus, {{coef, entropy}}, got "
                f"{state!r:.200}; the checkpoint is of another config"
            )
        self._held, self._last = float(held), math.inf if last is None else float(last)


@register("entropy", "temperature")
@dataclass(kw_only=True)
class TemperatureControl:
    """Training samples at a temperature that holds H_T near `target`: after each step `T <- clip(T
    exp(gain (target - H)), low, high)`, H a running mean of the tempered entropy.

    AceReason-Nemotron 1.1 (Liu et al. 2025, arXiv 2506.13284) chooses T by hand so that H_T is near
    0.3; the rule is ours. It begins at `sampling.temperature`, at which evaluations stay.
    """

    coef: ClassVar[float] = 0.0
    target: Annotated[float, Gt(0)] = 0.3
    """Entropy to hold (above 0, nats per token)."""
    gain: Annotated[float, Gt(0)] = 0.1
    """Change of log T per nat and step (above 0)."""
    low: Annotated[float, Gt(0)] = 0.6
    """Smallest temperature (above 0)."""
    high: Annotated[float, Gt(0)] = 1.2
    """Largest temperature (above 0)."""
    ema: Annotated[float, Ge(0), Lt(1)] = 0.9
    """Weight of the past in the running mean (0 to below 1)."""
    top: Share = 1.0
    """As for `bonus`: share of tokens with the highest entropy that the surrogate trains."""
    _held: float | None = field(init=False, repr=False, compare=False, default=None)
    _mean: float | None = field(init=False, repr=False, compare=False, default=None)

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ConfigError(f"low: must be at most high={self.high} (got {self.low})")

    def temper(self, start: float) -> float:
        """The temperature of the step that comes; the first one has `start`."""
        if self._held is None:
            self._held = start
        return self._held

    def observe(self, entropy: float) -> None:
        """Adapt to the step before. NaN (nothing was trained) changes nothing."""
        if math.isnan(entropy):
            return
        past = entropy if self._mean is None else self._mean
        self._mean = self.ema * past + (1.0 - self.ema) * entropy
        if self._held is not None:
            moved = self._held * math.exp(self.gain * (self.target - self._mean))
            self._held = min(self.high, max(self.low, moved))

    def state(self) -> Json:
        """Temperature and running mean (None before the first step)."""
        return {"temperature": self._held, "entropy": self._mean}

    def restore(self, state: Json) -> None:
        """Go on from `state()`.

        Raises:
            ConfigError: it is something else.
        """
        if not isinstance(state, dict) or state.keys() != {"temperature", "entropy"}:
            raise ConfigError(
                "entropy: expected the state of a temperature control, {temperature, entropy}, got "
                f"{state!r:.200}; the checkpoint is of another config"
            )
        held, mean = state["temperature"], state["entropy"]
        self._held = float(held) if isinstance(held, int | float) else None
        self._mean = float(mean) if isinstance(mean, int | float) else None


def entropy_threshold(entropies: Sequence[float], top: float) -> float:
    """The entropy that a share `top` of the tokens reaches: their `1 - top` quantile, linearly
    interpolated; minus infinity without tokens."""
    if not entropies:
        return -math.inf
    values = torch.tensor(entropies, dtype=torch.float64).sort().values
    place = (1.0 - top) * (len(values) - 1)
    below = math.floor(place)
    above = min(below + 1, len(values) - 1)
    return float(values[below] + (place - below) * (values[above] - values[below]))
