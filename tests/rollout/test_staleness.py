"""The books of rollouts that run ahead: the bound on staleness holds whatever the latencies."""

from __future__ import annotations

import math
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentrl.rollout.staleness import Ledger


def run(
    ledger: Ledger, steps: int, rng: Random, *, tail: float, fresh: float
) -> tuple[list[list[int]], list[list[int]]]:
    """Play `steps` steps with random latencies; the numbers and the ages of each step's groups."""
    left: dict[int, int] = {}
    taken, ages = [], []
    for version in range(steps):
        ledger.version = version
        for _ in range(rng.randrange(4)):  # what completes while nobody waits
            for number in ledger.admit():
                left[number] = int(rng.paretovariate(tail) * 3)
            pass_time(ledger, left, rng, fresh)
        for number in ledger.drop_late():
            left.pop(number, None)
        waited = 0
        while not ledger.ready:
            for number in ledger.admit():
                left[number] = int(rng.paretovariate(tail) * 3)
            pass_time(ledger, left, rng, fresh)
            waited += 1
            assert waited < 10**6, "the trainer waits for ever"
        before = dict(ledger.back)
        numbers = ledger.take()
        taken.append(numbers)
        ages.append([version - before[number] for number in numbers])
    return taken, ages


def pass_time(ledger: Ledger, left: dict[int, int], rng: Random, fresh: float) -> None:
    if not left:
        return
    quickest = min(left.values())
    for number in [n for n, ticks in left.items() if ticks <= quickest]:
        del left[number]
        is_fresh = rng.random() < fresh  # its first token was sampled after a push
        ledger.complete(number, ledger.version if is_fresh else 0)
    for number in left:
        left[number] -= quickest


@pytest.mark.parametrize("late", ["wait", "drop"])
@settings(max_examples=150, deadline=None)
@given(
    per_step=st.integers(1, 5),
    bound=st.integers(0, 4),
    seed=st.integers(0, 10**9),
    tail=st.sampled_from([0.3, 1.0, 5.0]),
    fresh=st.sampled_from([0.0, 0.5, 1.0]),
)
def test_no_latency_makes_a_group_staler_than_the_bound(
    late: str, per_step: int, bound: int, seed: int, tail: float, fresh: float
) -> None:
    steps = 30
    ledger = Ledger(
        per_step=per_step,
        max_staleness=bound,
        late=late,  # type: ignore[arg-type]
        total=per_step * steps,
    )
    taken, ages = run(ledger, steps, Random(seed), tail=tail, fresh=fresh)
    assert all(len(numbers) == per_step for numbers in taken)
    assert max(max(step) for step in ages) <= bound
    numbers = [number for step in taken for number in step]
    assert len(set(numbers)) == len(numbers), "a group was trained on twice"
    assert ledger.next == len(numbers) + ledger.dropped, "a group was lost"
    assert late == "drop" or not ledger.dropped


def test_with_slow_groups_the_bound_is_reached_and_not_passed() -> None:
    ledger = Ledger(per_step=2, max_staleness=2, total=80)
    _, ages = run(ledger, 40, Random(1), tail=0.5, fresh=0.0)
    assert max(max(step) for step in ages) == 2


def test_the_admission_rule_counts_groups_since_the_run_began_less_dropped() -> None:
    ledger = Ledger(per_step=4, max_staleness=2, late="drop", total=1000)
    assert len(list(ledger.admit())) == 12  # (0 + 2 + 1) * 4
    ledger.version = 1
    assert len(list(ledger.admit())) == 4
    for number in range(8):
        ledger.complete(number, 0)
    ledger.take()
    ledger.version = 3
    assert sorted(ledger.drop_late()) == [4, 5, 6, 7, 8, 9, 10, 11]
    assert len(list(ledger.admit())) == 16  # (3 + 2 + 1) * 4 less the 8 that still count


def test_a_group_that_was_overtaken_is_waited_for_before_it_is_too_late() -> None:
    """Greedy first-come steps would leave two groups of version 0 for one place of step 2."""
    ledger = Ledger(per_step=1, max_staleness=2, total=100)
    assert list(ledger.admit()) == [0, 1, 2]
    ledger.complete(2, 0)
    assert ledger.ready
    assert ledger.take() == [2]
    ledger.version = 1
    (third,) = ledger.admit()
    ledger.complete(third, 1)
    is_ready = [ledger.ready]  # 0 and 1 must go by step 2, and this step has to take one of them
    ledger.complete(1, 0)
    is_ready.append(ledger.ready)
    assert is_ready == [False, True]
    assert ledger.take() == [1]


def test_a_version_that_the_engine_reports_as_older_than_admission_is_not_believed_younger() -> (
    None
):
    ledger = Ledger(per_step=1, max_staleness=1, total=10)
    ledger.version = 3
    (number, *_) = ledger.admit()
    ledger.complete(number, 4)
    assert ledger.back[number] == 4


def lengths_of(late: str, bound: int, steps: int = 400) -> list[float]:
    """Logarithms of the lengths of the groups that are trained on between the first and the last
    tenth of a run, where a group of length `l` takes `l` and a step takes 2."""
    rng, clock = Random(7), 0.0
    ledger = Ledger(per_step=8, max_staleness=bound, late=late, total=8 * steps)  # type: ignore[arg-type]
    length: dict[int, float] = {}
    ends: dict[int, float] = {}
    found: list[float] = []
    for version in range(steps):
        ledger.version = version
        for number in ledger.drop_late():
            ends.pop(number, None)
        while True:
            for number in ledger.admit():
                length[number] = rng.lognormvariate(0.0, 1.0)
                ends[number] = clock + length[number]
            for number in sorted(ends, key=ends.__getitem__):
                if ends[number] <= clock:
                    del ends[number]
                    ledger.complete(number, 0)
            if ledger.ready:
                break
            clock = min(ends.values())
        taken = ledger.take()
        if steps // 10 <= version < steps - steps // 10:
            found += [math.log(length[number]) for number in taken]
        clock += 2.0
    return found


@pytest.mark.parametrize("bound", [1, 2, 4])
def test_trained_groups_are_as_long_as_sampled_ones(bound: int) -> None:
    """No bias against long episodes: those that are late are trained on later, not left out."""
    logs = lengths_of("wait", bound)
    error = 1 / math.sqrt(len(logs))
    assert abs(math.fsum(logs) / len(logs)) < 4 * error
    spread = math.sqrt(math.fsum(x * x for x in logs) / len(logs))
    assert spread == pytest.approx(1.0, abs=4 * error)


def test_dropping_late_groups_favours_short_ones() -> None:
    logs = lengths_of("drop", 1)
    assert math.fsum(logs) / len(logs) < -8 / math.sqrt(len(logs))
