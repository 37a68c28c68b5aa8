"""What an action led to is worth as much as it was not foreseen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

import numpy as np
from annotated_types import Ge, Gt, Le
from numpy.typing import NDArray

from agentrl.core.errors import ConfigError
from agentrl.core.graph import as_text
from agentrl.core.registry import register
from agentrl.core.types import Group, Json, Trajectory, Turn
from agentrl.explore.captions import passages
from agentrl.explore.hashed import Vector, embedded, packed, regressed, unpacked


@register("bonus", "prediction")
@dataclass(kw_only=True)
class PredictionError:
    """|phi(s') - g(s, a)|^2, at most 1, where g foresees the hashed text that action a is answered
    with from the one before it (Pathak et al. 2017, arXiv 1705.05363, without its encoder).

    g is linear in the words of s, each joined to a, and solved for exactly after each step. What is
    random in an env is never foreseen, and pays for ever: the coefficient has to fade.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"texts"})

    size: Annotated[int, Ge(1), Le(256)] = 128
    """Length of hashed texts (1 to 256)."""
    ridge: Annotated[float, Gt(0)] = 0.1
    """Weight of the squared weights of g (above 0)."""
    _seen: NDArray[np.float64] = field(init=False, repr=False, compare=False)
    """`[size, size]`: sum of x x^T, x being what is foreseen from."""
    _sums: NDArray[np.float64] = field(init=False, repr=False, compare=False)
    """`[size, size]`: sum of phi(s') x^T."""
    _weights: NDArray[np.float64] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self._seen = np.zeros((self.size, self.size))
        self._sums = np.zeros((self.size, self.size))
        self._weights = np.zeros((self.size, self.size))

    def rate(self, groups: Sequence[Group]) -> list[list[list[float]]]:
        """`[group][trajectory][turn]`, each 0..1."""
        return [[self._rate(t) for t in group.trajectories] for group in groups]

    def observe(self, groups: Sequence[Group]) -> None:
        """Learn from every turn, those that branches share once."""
        pairs = [
            self._pair(turn, before, after)
            for group in groups
            for i, t in enumerate(group.trajectories)
            for k, (turn, (before, after)) in enumerate(zip(t.turns, passages(t), strict=True))
            if group.owner(i, k) == (i, k)
        ]
        if pairs:
            given_NS, answer_NS = (np.stack(part) for part in zip(*pairs, strict=True))
            self._seen += given_NS.T @ given_NS
            self._sums += answer_NS.T @ given_NS
            self._solve()

    def _rate(self, trajectory: Trajectory) -> list[float]:
        errors = []
        for turn, (before, after) in zip(trajectory.turns, passages(trajectory), strict=True):
            given, answer = self._pair(turn, before, after)
            missed = answer - self._weights @ given
            errors.append(min(1.0, float(missed @ missed)))
        return errors

    def _pair(self, turn: Turn, before: str, after: str) -> tuple[Vector, Vector]:
        action = "" if turn.action is None else as_text(turn.action)
        given = embedded(before, self.size, places=True, beside=action)
        return given, embedded(after, self.size, places=True)

    def _solve(self) -> None:
        self._weights = regressed(self._seen, self._sums, self.ridge)

    def state(self) -> Json:
        """What was learned from."""
        return {"seen": packed(self._seen), "sums": packed(self._sums)}

    def restore(self, state: Json) -> None:
        """Go on from `state()`. Raises `ConfigError` for anything else."""
        if not isinstance(state, dict):
            raise ConfigError(f"bonus: expected the state of prediction, got {state!r:.100}")
        self._seen = unpacked(state.get("seen"), self._seen.shape)
        self._sums = unpacked(state.get("sums"), self._sums.shape)
        self._solve()
