"""What a judge prefers to happen is worth more: a reward model learned from judged pairs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Annotated, ClassVar, NamedTuple

import numpy as np
from annotated_types import Ge, Le
from numpy.typing import NDArray

from agentrl.core.errors import ConfigError
from agentrl.core.registry import register
from agentrl.core.seeds import derive_seed
from agentrl.core.types import Group, Json, Trajectory
from agentrl.explore.captions import news, passages
from agentrl.explore.hashed import Vector, embedded


class Judged(NamedTuple):
    """Two captions, and how much the second is preferred: 0, 1, or .5 for a tie."""

    first: str
    second: str
    label: float


@dataclass(frozen=True, kw_only=True)
class ScriptedJudge:
    """Prefers the caption whose phrases are worth more, and is right with probability `quality`
    (else it says the opposite); the same pair in the other order gets the mirrored answer."""

    worth: dict[str, float]
    """Phrase -> its worth; a caption is worth the sum of those that it holds."""
    quality: float = 1.0
    seed: int = 0

    def __call__(self, first: str, second: str) -> float:
        """0 where the first is preferred, 1 where the second is, .5 for a tie."""
        one, other = self._worth(first), self._worth(second)
        if one == other:
            return 0.5
        rng = Random(derive_seed(self.seed, "judge", *sorted((first, second))))
        is_right = rng.random() < self.quality
        return float((other > one) == is_right)

    def _worth(self, caption: str) -> float:
        return sum(worth for phrase, worth in self.worth.items() if phrase in caption)


class Preferences:
    """r(c) = w^T phi(c), with P(second preferred) = sigmoid(r_2 - r_1) (Bradley and Terry)."""

    def __init__(self, size: int) -> None:
        self.weights: NDArray[np.float64] = np.zeros(size)

    def learn(self, pairs: Sequence[Judged], *, ridge: float = 0.01, rounds: int = 25) -> None:
        """Least cross-entropy against the labels (a tie is .5 each) by Newton's method."""
        size = len(self.weights)
        x_NS = np.stack([self._phi(p.second) - self._phi(p.first) for p in pairs])
        labels = np.array([p.label for p in pairs])
        for _ in range(rounds):
            p = 1.0 / (1.0 + np.exp(-x_NS @ self.weights))
            gradient = x_NS.T @ (p - labels) + ridge * self.weights
            hessian = (x_NS * (p * (1 - p))[:, None]).T @ x_NS + ridge * np.eye(size)
            self.weights = self.weights - np.linalg.solve(hessian, gradient)

    def __call__(self, caption: str) -> float:
        """r(c)."""
        return float(self.weights @ self._phi(caption))

    def _phi(self, caption: str) -> Vector:
        return embedded(caption, len(self.weights))


def loss(first: float, second: float, label: float) -> float:
    """Cross-entropy of softmax(first, second) against (1 - label, label)."""
    return float(np.logaddexp(first, second) - (1 - label) * first - label * second)


@register("bonus", "motif")
@dataclass(kw_only=True)
class Motif:
    """z(c) / N(c)^beta for the caption c of a turn, the new lines of its observation (Klissarov et
    al. 2023, arXiv 2310.00166). A reward model is learned from judged pairs; z is its value,
    normalised over the captions that were gathered, 0 where it is at most their `quantile` or
    negative, and 1 for the best of them. N counts the caption in this episode.

    Captions are gathered during the first `gather` steps, in which nothing is paid; then pairs of
    them are judged once. The judge is a script of given quality: a JSON object, phrase -> worth.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"texts"})

    judge: Path
    """What phrases are worth to the judge."""
    quality: Annotated[float, Ge(0), Le(1)] = 1.0
    """Share of pairs that it judges as the table says (0..1); the others it judges the other way.
    .5 knows nothing."""
    gather: Annotated[int, Ge(1)] = 2
    """Steps of which captions are gathered (1 or more)."""
    pairs: Annotated[int, Ge(1)] = 500
    """Pairs that are judged (1 or more)."""
    quantile: Annotated[float, Ge(0), Le(1)] = 0.5
    """Share of captions that are worth nothing (0..1)."""
    beta: Annotated[float, Ge(0)] = 3.0
    """Power of the count (0 or more)."""
    size: Annotated[int, Ge(1), Le(256)] = 128
    """Length of hashed captions (1 to 256)."""
    seed: int = 0
    """Of the pairs and of the judge's errors."""
    _steps: int = field(default=0, init=False, repr=False, compare=False)
    _gathered: dict[str, int] = field(default_factory=dict, init=False, repr=False, compare=False)
    """Captions -> how often they came."""
    _values: Values | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self._judge = ScriptedJudge(
            worth=read_worth(self.judge), quality=self.quality, seed=self.seed
        )

    def rate(self, groups: Sequence[Group]) -> list[list[list[float]]]:
        """`[group][trajectory][turn]`, each 0 or more; 0 before pairs were judged."""
        return [[self._rate(t) for t in group.trajectories] for group in groups]

    def observe(self, groups: Sequence[Group]) -> None:
        """Gather captions; after the last of those steps, have pairs judged and learn."""
        self._steps += 1
        if self._steps > self.gather:
            return
        for group in groups:
            for t in group.trajectories:
                for caption in captions(t):
                    if caption:
                        self._gathered[caption] = self._gathered.get(caption, 0) + 1
        if self._steps == self.gather:
            self._learn()

    def _rate(self, trajectory: Trajectory) -> list[float]:
        if self._values is None:
            return [0.0] * len(trajectory.turns)
        seen: Counter[str] = Counter()
        ratings = []
        for caption in captions(trajectory):
            seen[caption] += 1
            value = self._values.of(caption) if caption else 0.0
            ratings.append(value / seen[caption] ** self.beta)
        return ratings

    def _learn(self) -> None:
        known = sorted(self._gathered)
        if len(known) < 2:
            return
        rng = Random(derive_seed(self.seed, "pairs"))
        drawn = [rng.sample(known, 2) for _ in range(self.pairs)]
        model = Preferences(self.size)
        model.learn([Judged(one, other, self._judge(one, other)) for one, other in drawn])
        every = [caption for caption in known for _ in range(self._gathered[caption])]
        self._values = Values.over(model, every, self.quantile)

    def state(self) -> Json:
        """What was gathered; the model is learned from it anew."""
        return {"steps": self._steps, "gathered": dict(self._gathered)}

    def restore(self, state: Json) -> None:
        """Go on from `state()`. Raises `ConfigError` for anything else."""
        steps = state.get("steps") if isinstance(state, dict) else None
        gathered = state.get("gathered") if isinstance(state, dict) else None
        if not isinstance(steps, int) or not isinstance(gathered, dict):
            raise ConfigError(f"bonus: expected the state of motif, got {state!r:.100}")
        self._steps = steps
        self._gathered = {str(caption): int(str(n)) for caption, n in gathered.items()}
        if steps >= self.gather:
            self._learn()


class Values:
    """A reward model's values, normalised and cut over a set of captions; the largest is 1."""

    def __init__(
        self, model: Preferences, mean: float, std: float, least: float, most: float
    ) -> None:
        self.model, self.mean, self.std, self.least, self.most = model, mean, std, least, most

    @classmethod
    def over(cls, model: Preferences, captions: Sequence[str], quantile: float) -> Values:
        """Where all captions are alike, everything is worth 0."""
        raw = np.array([model(caption) for caption in captions])
        mean, std = float(raw.mean()), float(raw.std())
        z = (raw - mean) / std if std > 1e-12 else np.zeros_like(raw)
        return cls(model, mean, std, float(np.quantile(z, quantile)), float(z.max()))

    def of(self, caption: str) -> float:
        """0..1, and more only for a caption that was not among them."""
        if self.std <= 1e-12:
            return 0.0
        z = (self.model(caption) - self.mean) / self.std
        return z / self.most if z > max(self.least, 0.0) else 0.0


def captions(trajectory: Trajectory) -> list[str]:
    """The caption of each turn; empty where nothing is new."""
    return ["\n".join(news(before, after)) for before, after in passages(trajectory)]


def read_worth(path: Path) -> dict[str, float]:
    """A judge's table. Raises `ConfigError` if it is none."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"judge: {path} cannot be read as JSON ({error})") from error
    if not isinstance(raw, dict) or not all(isinstance(v, int | float) for v in raw.values()):
        raise ConfigError(f'judge: expected {path} to hold an object such as {{"key": 1.0}}')
    return {phrase: float(worth) for phrase, worth in raw.items()}
