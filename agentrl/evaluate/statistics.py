"""What a set of evaluation episodes says: success with an interval, pass@k, lengths, failures.

Episodes that the machinery broke (`Stop.TIMEOUT`, `Stop.ERROR`) are counted by the boundary that
broke and enter no other number. Pure functions over groups; nothing here plays an episode.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import cast

from agentrl.core.errors import DataError
from agentrl.core.types import Group, Json, Split, Trajectory
from agentrl.track.jsonl import append_line, finite, read_lines, write_lines

EVALS_FILE = "evals.jsonl"

MARKDOWN_HEADER = (
    "| policy | split | success | 95 % interval | episodes | reward | turns | tokens "
    "| invalid turns | pass@k | failures |\n|---|---|---|---|---|---|---|---|---|---|---|"
)


def wilson(successes: int, n: int, z: float = 1.959964) -> tuple[float, float]:
    """Wilson's score interval for a proportion (Wilson 1927), 95 % by default.

    With p = successes / n: `(p + z^2/2n -+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n)`.
    Without a trial the interval is all of [0, 1]. It takes the trials for independent: with several
    samples per task it is the interval of these tasks, too narrow for tasks not drawn.

    Raises:
        DataError: not 0 <= successes <= n.
    """
    if not 0 <= successes <= n:
        raise DataError(f"expected 0 <= successes <= n, got {successes} of {n}")
    if n == 0:
        return 0.0, 1.0
    p, z2 = successes / n, z * z
    centre = p + z2 / (2 * n)
    half = z * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    scale = 1 + z2 / n
    low = 0.0 if successes == 0 else (centre - half) / scale  # exact where rounding would not be
    high = 1.0 if successes == n else (centre + half) / scale
    return low, high


def pass_at_k(n: int, c: int, k: int) -> float:
    """Chance that one of k samples, drawn from n of which c succeeded, succeeded.

    `1 - C(n-c, k) / C(n, k)` (Chen et al. 2021, arXiv 2107.03374, eq. 1), without bias for k <= n.

    Raises:
        DataError: not 0 <= c <= n or not 1 <= k <= n.
    """
    if not (0 <= c <= n and 1 <= k <= n):
        raise DataError(f"expected 0 <= c <= n and 1 <= k <= n, got n={n}, c={c}, k={k}")
    return 1.0 - math.comb(n - c, k) / math.comb(n, k)


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalResult:
    """One evaluation of one policy. Means are over the episodes that did not fail (NaN: none)."""

    name: str
    """Who played: `random`, `expert`, `sft`, `sft_double`, `step` (during training), `final`."""
    step: int
    split: Split
    tasks: int
    samples: int
    """Episodes per task."""
    episodes: int
    """Episodes played, failed ones among them."""
    successes: int
    success: float
    """Share of the episodes that did not fail."""
    low: float
    """Lower end of the 95 % Wilson interval of `success`."""
    high: float
    reward: float
    turns: float
    tokens: float
    """Sampled tokens per episode."""
    invalid: float
    """Share of turns whose action was invalid."""
    pass_at_k: Mapping[int, float] = field(default_factory=dict)
    """k -> mean over the tasks that have at least k episodes."""
    failures: Mapping[str, int] = field(default_factory=dict)
    """Boundary that broke (env, engine, reward) -> failed episodes."""
    stops: Mapping[str, int] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def counted(self) -> int:
        """The denominator of `success`: episodes that did not fail."""
        return self.episodes - sum(self.failures.values())

    def numbers(self) -> dict[str, float]:
        """What is followed over the evaluations of a run."""
        keys = ("success", "reward", "turns", "tokens", "invalid")
        return {key: getattr(self, key) for key in keys}

    def to_json(self) -> dict[str, Json]:
        """Plain data, with null for NaN."""
        plain: dict[str, Json] = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, Mapping):
                plain[item.name] = {str(key): entry for key, entry in value.items()}
            else:
                plain[item.name] = finite(value) if isinstance(value, float) else value
        return plain

    @classmethod
    def from_json(cls, plain: Mapping[str, Json]) -> EvalResult:
        """What `to_json` wrote; fields of a later version are left out.

        Raises:
            DataError: a field is missing.
        """
        known = {item.name for item in fields(cls)}
        values = {key: value for key, value in plain.items() if key in known}
        for key in ("success", "reward", "turns", "tokens", "invalid"):
            if values.get(key, 0.0) is None:
                values[key] = math.nan
        passes = cast("Mapping[str, float]", values.get("pass_at_k", {}))
        try:
            return cls(**values | {"pass_at_k": {int(k): p for k, p in passes.items()}})  # type: ignore[arg-type]
        except TypeError as error:
            raise DataError(f"not an evaluation result ({error}): {json.dumps(plain)}") from error

    def lines(self) -> list[str]:
        """Two or three lines for a terminal."""
        where = f"{self.name} on {self.split}" + (f", step {self.step}" if self.step else "")
        more = [
            f"reward {_number(self.reward)}",
            f"turns {_number(self.turns)}",
            f"tokens {_number(self.tokens)}",
            f"invalid turns {_percent(self.invalid)}",
            *([_passes(self.pass_at_k)] if _passes(self.pass_at_k) else []),
            f"{self.seconds:.1f} s",
        ]
        lines = [
            f"{where}: success {_percent(self.success)} "
            f"({_percent(self.low)} to {_percent(self.high)}), "
            f"{self.successes} of {self.counted} episodes ({self.tasks} tasks x {self.samples})",
            "  " + ", ".join(more),
        ]
        stops = ", ".join(f"{stop} {count}" for stop, count in self.stops.items())
        failed = ", ".join(f"{where} {count}" for where, count in self.failures.items())
        lines.append(f"  stops: {stops or 'none'}" + (f"; failures: {failed}" if failed else ""))
        return lines

    def markdown(self) -> str:
        """One row under `MARKDOWN_HEADER`."""
        name = self.name + (f" (step {self.step})" if self.name == "step" else "")
        failed = ", ".join(f"{where} {count}" for where, count in self.failures.items())
        cells = (
            name.replace("|", "\\|"),
            self.split,
            _percent(self.success),
            f"{_percent(self.low)} to {_percent(self.high)}",
            f"{self.successes} of {self.counted}",
            _number(self.reward),
            _number(self.turns),
            _number(self.tokens),
            _percent(self.invalid),
            _passes(self.pass_at_k) or "-",
            failed or "0",
        )
        return f"| {' | '.join(cells)} |"


def summarise(
    name: str, groups: Sequence[Group], *, step: int, split: Split, seconds: float
) -> EvalResult:
    """Statistics of the episodes in `groups`, one group per task.

    A trajectory whose `success` is None counts as not successful. Reward is the score's value where
    there is one, the env's return otherwise.
    """
    everything = [trajectory for group in groups for trajectory in group.trajectories]
    valid = [trajectory for trajectory in everything if not _has_failed(trajectory)]
    failed = [trajectory for trajectory in everything if _has_failed(trajectory)]
    successes = sum(trajectory.success is True for trajectory in valid)
    low, high = wilson(successes, len(valid))
    turns = [turn for trajectory in valid for turn in trajectory.turns]
    return EvalResult(
        name=name,
        step=step,
        split=split,
        tasks=len(groups),
        samples=max((len(group.trajectories) for group in groups), default=0),
        episodes=len(everything),
        successes=successes,
        success=_mean(valid, lambda trajectory: trajectory.success is True),
        low=low,
        high=high,
        reward=_mean(valid, _reward),
        turns=_mean(valid, lambda trajectory: len(trajectory.turns)),
        tokens=_mean(valid, lambda trajectory: trajectory.n_tokens),
        invalid=sum(turn.invalid for turn in turns) / len(turns) if turns else math.nan,
        pass_at_k=_mean_pass_at_k(groups),
        failures=_counts(t.failure.where if t.failure else "unknown" for t in failed),
        stops=_counts(trajectory.stop.value for trajectory in everything),
        seconds=seconds,
    )


def append_eval(folder: Path, result: EvalResult) -> None:
    """Add a result to the run's evals.jsonl."""
    append_line(folder / EVALS_FILE, result.to_json())


def read_evals(folder: Path) -> list[EvalResult]:
    """The results in the run's evals.jsonl, oldest first; none if there is no such file."""
    return [EvalResult.from_json(line) for line in read_lines(folder / EVALS_FILE)]


def cut_evals(folder: Path, step: int) -> None:
    """Drop the final evaluation and those after `step`, as a run does that goes on from there."""
    kept = [
        result
        for result in read_evals(folder)
        if result.name != "final" and (result.name != "step" or result.step <= step)
    ]
    write_lines(folder / EVALS_FILE, [result.to_json() for result in kept])


def _has_failed(trajectory: Trajectory) -> bool:
    return trajectory.stop.is_failure or trajectory.failure is not None


def _reward(trajectory: Trajectory) -> float:
    return trajectory.env_return if trajectory.score is None else trajectory.score.value


def _mean(trajectories: Sequence[Trajectory], of: Callable[[Trajectory], float]) -> float:
    return math.fsum(map(of, trajectories)) / len(trajectories) if trajectories else math.nan


def _mean_pass_at_k(groups: Sequence[Group]) -> dict[int, float]:
    """Means for k = 1, 2, 4, ... and the most episodes that a task has."""
    counts = []
    for group in groups:
        valid = [trajectory for trajectory in group.trajectories if not _has_failed(trajectory)]
        counts.append((len(valid), sum(trajectory.success is True for trajectory in valid)))
    most = max((n for n, _ in counts), default=0)
    means = {}
    for k in sorted({2**power for power in range(most.bit_length())} | ({most} - {0})):
        passes = [pass_at_k(n, c, k) for n, c in counts if n >= k]
        means[k] = math.fsum(passes) / len(passes)
    return means


def _counts(names: Iterable[str]) -> dict[str, int]:
    return dict(Counter(names).most_common())


def _percent(share: float) -> str:
    return "-" if math.isnan(share) else f"{100 * share:.1f} %"


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3g}"


def _passes(pass_at_k: Mapping[int, float]) -> str:
    return ", ".join(f"pass@{k} {_percent(p)}" for k, p in pass_at_k.items() if k > 1)
