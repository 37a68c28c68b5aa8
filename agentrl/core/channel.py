"""The second channel's settings, and the rule by which its coefficient fades.

`A = A_task + c A_bonus`: what explores is paid beside the reward, never in it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal, NamedTuple

from annotated_types import Ge, Gt, Le

from agentrl.core.errors import ConfigError
from agentrl.core.types import Json


class Seen(NamedTuple):
    """What a step tells of the second channel's use. Sums are over siblings within their groups,
    about their mean, in groups whose scores and bonuses both differ."""

    hopeless: float
    """Share of groups whose scores are equal and in which nobody succeeded (0..1)."""
    groups: int = 0
    """Groups with different scores and different bonuses."""
    products: float = 0.0
    """Sum of (score - mean) (bonus - mean)."""
    scores: float = 0.0
    """Sum of (score - mean)^2."""
    bonuses: float = 0.0
    """Sum of (bonus - mean)^2."""


@dataclass(kw_only=True)
class Channel:
    """How a bonus becomes credit. An episode's bonuses times `scale` are cut to a sum of at most
    `cap`; their advantages are centred over the siblings and divided by max(std, `s0`).

    The coefficient is `coef`, falls linearly to 0, and is multiplied by two numbers (0..1) that are
    learned from the groups (`adapt`). The first is the need: the running share of groups in which
    nobody succeeded and all scores are equal, so that the reward says nothing. The second is 1
    until `evidence` groups had different scores and different bonuses; from then on it is the
    correlation of bonus and score between siblings, and 0 where that is negative. So a bonus goes
    away where rewards tell enough, and where those who got more of it fare no better.
    """

    coef: Annotated[float, Ge(0)] = 1.0
    """What the bonus' advantage is multiplied by at first (0 or more; 0 turns the channel off)."""
    scale: Annotated[float, Gt(0)] = 0.1
    """Task reward that a bonus of 1 counts as (above 0)."""
    cap: Annotated[float, Gt(0)] = 0.5
    """Most that one episode gets, in task reward (above 0); `coef * cap` lies below `s0`."""
    s0: Annotated[float, Gt(0)] = 1.0
    """Task reward between a success and a failure (above 0): the least divisor."""
    level: Literal["trajectory", "turn"] = "trajectory"
    """Whether an episode's turns share its sum, or each gets its own discounted return, centred
    over the siblings' same turn."""
    gamma: Annotated[float, Ge(0), Le(1)] = 0.9
    """Discount of a turn's later bonuses, under `level: turn` (0..1)."""
    anneal: Annotated[float, Gt(0), Le(1)] | None = 0.5
    """Share of training after which the coefficient has fallen to 0 (up to 1); `none`: never."""
    adapt: bool = True
    """Multiply the coefficient by need and correlation."""
    memory: Annotated[float, Ge(0), Le(1)] = 0.8
    """Weight of earlier steps in running means (0 to 1)."""
    evidence: Annotated[float, Gt(0)] = 8.0
    """Groups, older ones counted less, from which on the correlation decides (above 0)."""
    _need: float | None = field(default=None, init=False, repr=False, compare=False)
    _sums: tuple[float, float, float, float] = field(
        default=(0.0, 0.0, 0.0, 0.0), init=False, repr=False, compare=False
    )
    """Groups, products, scores and bonuses of `Seen`, older ones counted less."""

    def __post_init__(self) -> None:
        if self.coef * self.cap >= self.s0:
            raise ConfigError(
                f"cap: coef * cap must be below s0={self.s0:g}, so that no bonus ranks a failure "
                f"above a success (got {self.coef:g} * {self.cap:g})"
            )

    @property
    def need(self) -> float:
        """Running share of groups that the reward tells nothing about (0..1)."""
        return 1.0 if self._need is None else self._need

    @property
    def help(self) -> float:
        """How far a bonus goes with the score between siblings (0..1); 1 while that is unknown."""
        groups, products, scores, bonuses = self._sums
        if groups < self.evidence or scores * bonuses <= 0:
            return 1.0
        return min(1.0, max(0.0, float(products / (scores * bonuses) ** 0.5)))

    def coefficient(self, done: float) -> float:
        """The coefficient when `done` of training is behind (0..1)."""
        left = 1.0 if self.anneal is None else max(0.0, 1.0 - done / self.anneal)
        return self.coef * left * (self.need * self.help if self.adapt else 1.0)

    def observe(self, seen: Seen) -> None:
        """What the groups of a step showed, before its coefficient is asked for."""
        keep = self.memory
        self._need = (
            seen.hopeless if self._need is None else keep * self._need + (1 - keep) * seen.hopeless
        )
        news = (float(seen.groups), seen.products, seen.scores, seen.bonuses)
        groups, products, scores, bonuses = (
            keep * old + new for old, new in zip(self._sums, news, strict=True)
        )
        self._sums = groups, products, scores, bonuses

    def state(self) -> Json:
        """The running means."""
        return {"need": self._need, "sums": list(self._sums)}

    def restore(self, state: Json) -> None:
        """Go on from `state()`.

        Raises:
            ConfigError: it is something else.
        """
        need = state.get("need") if isinstance(state, dict) else None
        sums = state.get("sums") if isinstance(state, dict) else None
        if not isinstance(sums, list) or len(sums) != 4 or not isinstance(need, float | None):
            raise ConfigError(f"channel: expected its state {{need, sums}}, got {state!r:.200}")
        groups, products, scores, bonuses = map(float, sums)
        self._need, self._sums = need, (groups, products, scores, bonuses)
