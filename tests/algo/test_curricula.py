"""Which tasks come next."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from agentrl.algo.curricula.uniform import Uniform
from agentrl.core.types import Task

UNIFORM = Uniform()


def tasks(count: int) -> list[Task]:
    return [Task(id=f"t/{i}", seed=i) for i in range(count)]


def drawn(size: int, count: int, steps: range, seed: int = 0) -> list[int]:
    pool = tasks(size)
    return [task.seed for step in steps for task in UNIFORM.next(pool, count, step, seed)]


@given(st.integers(1, 12), st.integers(1, 9), st.integers(1, 6))
def test_every_lap_holds_every_task_once(size: int, count: int, laps: int) -> None:
    sequence = drawn(size, count, range(-(-size * laps // count)))
    for lap in range(laps):
        assert sorted(sequence[lap * size : (lap + 1) * size]) == list(range(size))


@given(st.integers(1, 12), st.integers(1, 9), st.integers(0, 8))
def test_a_resumed_run_goes_on_where_it_was(size: int, count: int, done: int) -> None:
    whole = drawn(size, count, range(12))
    assert drawn(size, count, range(done)) + drawn(size, count, range(done, 12)) == whole


def test_laps_and_seeds_have_their_own_order() -> None:
    first, second = drawn(10, 10, range(1)), drawn(10, 10, range(1, 2))
    assert first != second
    assert first != drawn(10, 10, range(1), seed=1)
    assert first == drawn(10, 10, range(1))


def test_orders_are_fair() -> None:
    firsts = Counter(drawn(4, 1, range(1), seed)[0] for seed in range(400))
    assert all(70 <= firsts[i] <= 130 for i in range(4))
