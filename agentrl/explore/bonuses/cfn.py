"""Pseudo-counts by coin flips: what was seen less often, also in other words, is worth more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

import numpy as np
from annotated_types import Ge, Gt, Le
from numpy.typing import NDArray

from agentrl.core.errors import ConfigError
from agentrl.core.registry import register
from agentrl.core.seeds import derive_seed
from agentrl.core.types import Group, Json
from agentrl.explore.captions import passages
from agentrl.explore.hashed import Vector, embedded, packed, regressed, unpacked


@register("bonus", "cfn")
@dataclass(kw_only=True)
class CoinFlips:
    """sqrt(mean_d f(s)^2), about 1/sqrt(N(s)), of the text s that a turn was answered. Every visit
    throws d coins of +-1 and f is regressed on them (CFN, Lobel et al. 2023, arXiv 2306.03186).

    f is linear in the hashed text plus a fixed random prior, by which unseen texts have about 1; it
    is solved for exactly after each step instead of by gradients.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"texts"})

    coins: Annotated[int, Ge(1)] = 20
    """d, coins of a visit (1 or more)."""
    size: Annotated[int, Ge(1), Le(256)] = 128
    """Length of the hashed text (1 to 256)."""
    ridge: Annotated[float, Gt(0)] = 0.01
    """Visits that the prior counts as (above 0)."""
    seed: int = 0
    """Of the coins and the prior."""
    _steps: int = field(default=0, init=False, repr=False, compare=False)
    _seen: NDArray[np.float64] = field(init=False, repr=False, compare=False)
    """`[size, size]`: sum phi phi^T."""
    _sums: NDArray[np.float64] = field(init=False, repr=False, compare=False)
    """`[coins, size]`: sum (coins - prior) phi^T."""
    _weights: NDArray[np.float64] = field(init=False, repr=False, compare=False)
    """`[coins, size]`."""

    def __post_init__(self) -> None:
        self._seen = np.zeros((self.size, self.size))
        self._sums = np.zeros((self.coins, self.size))
        self._weights = np.zeros((self.coins, self.size))
        rng = np.random.default_rng(derive_seed(self.seed, "prior"))
        self._prior = rng.standard_normal((self.coins, self.size))

    def rate(self, groups: Sequence[Group]) -> list[list[list[float]]]:
        """`[group][trajectory][turn]`, each 0..1."""
        return [
            [
                [self.novelty(embedded(after, self.size, places=True)) for _, after in passages(t)]
                for t in group.trajectories
            ]
            for group in groups
        ]

    def observe(self, groups: Sequence[Group]) -> None:
        """Throw coins for every visit, and solve for f."""
        self.visit(
            [
                embedded(after, self.size, places=True)
                for group in groups
                for i, t in enumerate(group.trajectories)
                for k, (_, after) in enumerate(passages(t))
                if group.owner(i, k) == (i, k)
            ]
        )

    def novelty(self, phi: Vector) -> float:
        """sqrt(mean f^2), at most 1; 0 for a text without words."""
        return min(1.0, float(np.sqrt(self.mean_square(phi))))

    def mean_square(self, phi: Vector) -> float:
        """mean_d f^2, whose expectation is 1/N for what was visited N times."""
        f = (self._prior + self._weights) @ phi
        return float(np.mean(f * f))

    def visit(self, phis: Sequence[Vector]) -> None:
        """One more visit of each."""
        if not phis:
            return
        rng = np.random.default_rng(derive_seed(self.seed, "coins", self._steps))
        phi_NS = np.stack(phis)
        coins_ND = rng.choice((-1.0, 1.0), (len(phis), self.coins))
        self._steps += 1
        self._seen += phi_NS.T @ phi_NS
        self._sums += (coins_ND - phi_NS @ self._prior.T).T @ phi_NS
        self._solve()

    def _solve(self) -> None:
        self._weights = regressed(self._seen, self._sums, self.ridge)

    def state(self) -> Json:
        """What was seen and thrown."""
        return {"steps": self._steps, "seen": packed(self._seen), "sums": packed(self._sums)}

    def restore(self, state: Json) -> None:
        """Go on from `state()`. Raises `ConfigError` for anything else."""
        steps = state.get("steps") if isinstance(state, dict) else None
        if not isinstance(state, dict) or not isinstance(steps, int):
            raise ConfigError(f"bonus: expected the state of cfn, got {state!r:.100}")
        self._seen = unpacked(state.get("seen"), self._seen.shape)
        self._sums = unpacked(state.get("sums"), self._sums.shape)
        self._steps = steps
        if steps:
            self._solve()
