"""The unsolved curriculum: what teaches nothing any more is left out, and may come back."""

import pytest

from agentrl.algo.curricula.unsolved import Unsolved
from agentrl.core.errors import ConfigError
from agentrl.core.protocols import Informed, Stateful
from agentrl.core.types import Task

TASKS = [Task(id=f"t{i}", seed=i) for i in range(10)]


def ids(part: Unsolved, step: int = 0, count: int = 4) -> list[str]:
    return [task.id for task in part.next(TASKS, count, step, 1)]


def test_it_learns_from_outcomes_and_keeps_its_state() -> None:
    part = Unsolved()
    assert isinstance(part, Informed)
    assert isinstance(part, Stateful)
    part.observe([(TASKS[3], 1.0), (TASKS[4], 0.9)])
    again = Unsolved()
    again.restore(part.state())
    assert [ids(again, step) for step in range(5)] == [ids(part, step) for step in range(5)]
    with pytest.raises(ConfigError, match="expected the state of unsolved"):
        again.restore({"levels": []})


def test_solved_tasks_are_left_out_until_they_fail_again() -> None:
    part = Unsolved()
    part.observe([(task, 1.0) for task in TASKS[:5]])
    assert {name for step in range(30) for name in ids(part, step)} == {
        f"t{i}" for i in (5, 6, 7, 8, 9)
    }
    part.observe([(TASKS[0], 0.5)])
    assert "t0" in {name for step in range(30) for name in ids(part, step)}


def test_a_step_has_distinct_tasks_and_is_filled_with_solved_ones() -> None:
    part = Unsolved()
    part.observe([(task, 1.0) for task in TASKS[:8]])
    chosen = ids(part)
    assert set(chosen[:2]) == {"t8", "t9"}
    assert len(set(chosen)) == 4
    assert len(ids(part, count=25)) == 25
    part.observe([(task, 1.0) for task in TASKS])
    assert len(set(ids(part))) == 4


def test_a_share_of_solved_tasks_is_reviewed() -> None:
    part = Unsolved(review=0.5, threshold=0.5)
    part.observe([(task, 0.5) for task in TASKS[:5]])
    chosen = ids(part)
    assert sum(name < "t5" for name in chosen) == 2
