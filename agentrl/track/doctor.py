"""The doctor watches a run's metrics, names what is wrong, and says what to try.

Twelve kinds of trouble, each a function of the metrics so far (`CHECKS`). A check that asks for a
metric that the run does not measure finds nothing. The console asks after each step, the report of
a run at its end; `docs/doctor.md` says how often the answers are right.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, median

from agentrl.core.types import Json

SOLVED = 0.9
"""Success from which a policy may well be sure of itself, and its groups alike."""
KEPT, FIRST = 500, 16
"""Steps that are looked at, and how many of them are the first ones."""
Line = Mapping[str, object]


@dataclass(frozen=True)
class Chart:
    """What was measured, step by step."""

    lines: Sequence[Line]

    def series(self, key: str) -> list[float]:
        """A metric over the steps that measured it."""
        found = [line.get(key) for line in self.lines]
        return [float(v) for v in found if isinstance(v, int | float) and v == v]

    def recent(self, key: str, steps: int) -> float | None:
        """Its mean over the last steps; None if fewer measured it."""
        found = self.series(key)[-steps:]
        return fmean(found) if len(found) == steps else None

    def start(self, key: str, steps: int) -> float | None:
        """Its mean over the first steps, of a run that is at least twice as long."""
        found = self.series(key)
        return fmean(found[:steps]) if len(found) >= 2 * steps else None

    @property
    def is_solved(self) -> bool:
        """Nearly every episode of the last steps succeeded."""
        success = self.recent("rollout/success", 5)
        return success is not None and success >= SOLVED


def _entropy_collapse(chart: Chart) -> str | None:
    now, start = chart.recent("loss/entropy", 3), chart.start("loss/entropy", 3)
    if now is None or start is None or chart.is_solved:
        return None
    return f"{now:.3g} nats, from {start:.3g}" if now < max(0.1 * start, 0.01) else None


def _dead_groups(chart: Chart) -> str | None:
    share = chart.recent("groups/frac_zero_std", 5)
    if share is None or share < 0.95 or chart.is_solved:
        return None
    return f"{100 * share:.0f} % of the groups have equal rewards"


def _length_hacking(chart: Chart) -> str | None:
    names = ("rollout/tokens", "rollout/reward", "rollout/success")
    now = [chart.recent(name, 5) for name in names]
    start = [chart.start(name, 3) for name in names]
    if None in now or None in start:
        return None
    (tokens, reward, success), (tokens_0, reward_0, success_0) = _numbers(now), _numbers(start)
    unearned = (reward - reward_0) - max(success - success_0, 0.0)
    if tokens <= 1.5 * tokens_0 or success > success_0 + 0.02 or unearned <= 0.02:
        return None
    return f"{tokens:.0f} tokens an episode, from {tokens_0:.0f}; reward rose and success did not"


def _stale_samples(chart: Chart) -> str | None:
    age = chart.recent("rollout/staleness", 3)
    return f"groups are {age:.1f} versions old" if age is not None and age >= 4 else None


def _exploding_ratio(chart: Chart) -> str | None:
    drift = chart.recent("drift/old_k3", 3) or 0.0
    ratio = chart.recent("loss/ratio", 3) or 1.0
    low, high = (chart.recent(f"loss/clip_{side}", 3) or 0.0 for side in ("low", "high"))
    if drift <= 0.1 and abs(ratio - 1) <= 0.2 and low + high <= 0.3:
        return None
    return f"mean ratio {ratio:.2f}, {100 * (low + high):.0f} % clipped, drift {drift:.2g} nats"


def _mask_share(chart: Chart) -> str | None:
    now, start = chart.recent("loss/trained_share", 3), chart.start("loss/trained_share", 3)
    if now is None or (now >= 0.005 and (start is None or now >= 0.25 * start)):
        return None
    return f"{100 * now:.2g} % of the tokens are trained" + (
        "" if start is None else f", from {100 * start:.2g} %"
    )


def _sampler_mismatch(chart: Chart) -> str | None:
    gap, age = chart.recent("mismatch/k3", 3), chart.recent("rollout/staleness", 3)
    limit = 0.1 if age is not None and age >= 0.5 else 1e-3
    return (
        f"{gap:.2g} nats between sampler and trainer" if gap is not None and gap > limit else None
    )


def _lr_too_high(chart: Chart) -> str | None:
    success, norms = chart.series("rollout/success"), chart.series("loss/grad_norm")
    now, norm = chart.recent("rollout/success", 3), chart.recent("loss/grad_norm", 3)
    if now is None or norm is None or len(success) < 8:
        return None
    best = max(fmean(success[:2]), *(fmean(success[i : i + 5]) for i in range(len(success) - 7)))
    usual = median(norms[:-3]) if len(norms) > 3 else norm
    drift = chart.recent("drift/old_k3", 3) or 0.0
    if best < 0.1 or now >= 0.5 * best or (norm <= 3 * usual and drift <= 0.05):
        return None
    return (
        f"success fell from {best:.2f} to {now:.2f}, gradient norm {norm:.2g} (usually {usual:.2g})"
    )


def _lr_too_low(chart: Chart) -> str | None:
    moves = chart.series("drift/old_k3")[-10:]
    if len(moves) < 10 or chart.is_solved or _dead_groups(chart) is not None:
        return None
    # With one update a step nothing is measured: the old weights are the live ones, exactly 0.
    if median(moves) >= 1e-6 or max(moves) == 0.0:
        return None
    return f"the policy moves by {median(moves):.1g} nats a step"


def _parts_at_war(chart: Chart) -> str | None:
    against = chart.recent("reward/parts_correlation", 5)
    if against is None or against >= -0.5:
        return None
    return f"two parts of the reward correlate at {against:.2f}"


def _kl_runaway(chart: Chart) -> str | None:
    series, now = chart.series("drift/ref_k3"), chart.recent("drift/ref_k3", 3)
    if now is None or now <= 0.3 or len(series) < 8 or now <= 1.5 * fmean(series[-8:-5]):
        return None
    return f"{now:.2g} nats a token from the reference, and growing"


def _invalid_rising(chart: Chart) -> str | None:
    now, start = chart.recent("rollout/invalid", 5), chart.start("rollout/invalid", 5)
    if now is None or start is None or now <= start + 0.2:
        return None
    return f"{100 * now:.0f} % of the replies are no action, from {100 * start:.0f} %"


@dataclass(frozen=True)
class Check:
    """One kind of trouble: what it looks at, and what to try."""

    kind: str
    watches: str
    advice: str
    look: Callable[[Chart], str | None]


CHECKS = (
    Check(
        "entropy collapse",
        "`loss/entropy` below a tenth of its start, or 0.01, while tasks fail",
        "loss.high above loss.low, entropy=adaptive or temperature, a lower optim.lr",
        _entropy_collapse,
    ),
    Check(
        "dead groups",
        "`groups/frac_zero_std` at 95 % for five steps, while tasks fail",
        "easier tasks first (curriculum), a warm start (sft, explore), strategy=dynamic, a larger "
        "rollout.group_size",
        _dead_groups,
    ),
    Check(
        "length hacking",
        "`rollout/tokens` up by half and `rollout/reward` up, `rollout/success` not",
        "reward=success or overlong, aggregate=constant, a smaller sampling.max_tokens",
        _length_hacking,
    ),
    Check(
        "stale samples",
        "`rollout/staleness` of 4 versions",
        "a smaller rollout.max_staleness, mode=partial, or a mismatch correction",
        _stale_samples,
    ),
    Check(
        "exploding ratio",
        "`drift/old_k3` above 0.1, `loss/ratio` 0.2 from 1, or 30 % clipped",
        "fewer optim.updates_per_batch or epochs, a lower optim.lr",
        _exploding_ratio,
    ),
    Check(
        "mask share",
        "`loss/trained_share` below 0.5 %, or a quarter of its start",
        "shorter observations, another context, masks of the estimator (keep) that are not meant",
        _mask_share,
    ),
    Check(
        "sampler mismatch",
        "`mismatch/k3` above 0.001 where samples are fresh, 0.1 elsewhere",
        "the engine's number format, sampling options that the trainer does not know, mismatch=tis",
        _sampler_mismatch,
    ),
    Check(
        "learning rate too high",
        "`rollout/success` at half its best, with `loss/grad_norm` at 3 times the usual or "
        "`drift/old_k3` above 0.05",
        "a third of optim.lr, a longer optim.warmup, a smaller optim.grad_clip; go on from the "
        "best checkpoint",
        _lr_too_high,
    ),
    Check(
        "learning rate too low",
        "`drift/old_k3` below 1e-6 for ten steps, though groups are not dead",
        "three times optim.lr, more optim.updates_per_batch",
        _lr_too_low,
    ),
    Check(
        "reward parts at war",
        "`reward/parts_correlation` below -0.5 for five steps",
        "the weights of the parts, advantage=gdpo, one part less",
        _parts_at_war,
    ),
    Check(
        "KL runaway",
        "`drift/ref_k3` above 0.3 and half as much again within five steps",
        "a larger kl.beta, a lower optim.lr, fewer steps",
        _kl_runaway,
    ),
    Check(
        "invalid actions rising",
        "`rollout/invalid` up by 20 points",
        "a penalty for them (rollout.on_invalid=end), a lower optim.lr, a warm start",
        _invalid_rising,
    ),
)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A kind of trouble, the step at which it was first seen, and the figures."""

    kind: str
    step: int
    what: str
    advice: str

    def line(self) -> str:
        """One line for people."""
        return f"doctor: step {self.step}: {self.kind}: {self.what}. Try {self.advice}"

    def plain(self) -> dict[str, Json]:
        """As JSON."""
        return {"kind": self.kind, "step": self.step, "what": self.what, "try": self.advice}


@dataclass(kw_only=True)
class Doctor:
    """Looks at a run after each step."""

    lines: list[Line] = field(default_factory=list)
    """The metrics so far."""
    found: dict[str, Finding] = field(default_factory=dict)
    """What was wrong at some time, by kind."""

    def observe(self, step: int, metrics: Line) -> list[Finding]:
        """What is wrong for the first time after this step."""
        self.lines.append(metrics)
        if len(self.lines) > KEPT:
            del self.lines[FIRST]  # the beginning is what later steps are compared with
        chart, new = Chart(self.lines), []
        for check in CHECKS:
            what = None if check.kind in self.found else check.look(chart)
            if what is not None:
                self.found[check.kind] = Finding(
                    kind=check.kind, step=step, what=what, advice=check.advice
                )
                new.append(self.found[check.kind])
        return new


def examine(lines: Sequence[Line]) -> list[Finding]:
    """What was wrong at some time of a run that wrote these metrics, in order."""
    doctor = Doctor()
    for number, line in enumerate(lines, 1):
        step = line.get("step", number)
        doctor.observe(int(step) if isinstance(step, int | float) else number, line)
    return list(doctor.found.values())


def _numbers(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None]
