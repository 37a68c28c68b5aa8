"""The rising curriculum: harder tasks come when easier ones are solved; a resumed run agrees."""

from typing import cast

import pytest

from agentrl.algo.curricula.rising import Rising
from agentrl.core import registry
from agentrl.core.errors import ConfigError
from agentrl.core.protocols import Informed, Stateful
from agentrl.core.types import Group, Stop, Task, Trajectory
from agentrl.train.loop import outcomes_of

TASKS = [Task(id=f"t{i}", seed=i, data={"level": i % 3}) for i in range(60)]


def levels(tasks: list[Task]) -> list[int]:
    return sorted(cast("int", task.data["level"]) for task in tasks)


def play(part: Rising, success: float, *, step: int, seed: int = 1) -> list[Task]:
    """A step whose tasks are all solved so often."""
    tasks = part.next(TASKS, 8, step, seed)
    part.observe([(task, success) for task in tasks])
    return tasks


def test_it_is_a_curriculum_that_learns_from_outcomes_and_keeps_its_state() -> None:
    part = registry.find("curriculum", "rising")()
    assert isinstance(part, Informed)
    assert isinstance(part, Stateful)


def test_the_level_rises_when_the_window_s_mean_reaches_the_threshold() -> None:
    part = Rising(threshold=0.5, window=2, review=0.0)
    successes = [0.9, 0.0, 0.4, 0.6, 1.0, 1.0, 1.0, 1.0]
    seen = [set(levels(play(part, s, step=i))) for i, s in enumerate(successes)]
    assert seen == [{0}, {0}, {0}, {0}, {1}, {1}, {2}, {2}]


def test_a_new_level_begins_with_an_empty_window() -> None:
    part = Rising(threshold=0.5, window=2, review=0.0)
    for step in range(2):
        play(part, 1.0, step=step)
    play(part, 1.0, step=2)
    assert set(levels(part.next(TASKS, 8, 3, 1))) == {1}


def test_some_tasks_of_easier_levels_are_reviewed() -> None:
    part = Rising(threshold=0.5, window=1, review=0.25)
    for step in range(2):
        play(part, 1.0, step=step)
    tasks = part.next(TASKS, 8, 2, 1)
    assert levels(tasks).count(2) == 6
    assert set(levels(tasks)[:2]) <= {0, 1}
    assert len({task.id for task in tasks}) == 8


def test_reviewed_tasks_do_not_count_for_the_level() -> None:
    part = Rising(threshold=0.5, window=1, review=0.5)
    play(part, 1.0, step=0)
    tasks = part.next(TASKS, 8, 1, 1)
    part.observe([(task, float(task.data["level"] == 0)) for task in tasks])
    assert levels(part.next(TASKS, 8, 2, 1)).count(1) == 4


def test_more_tasks_than_a_level_has_repeat_it_evenly() -> None:
    tasks = Rising().next(TASKS, 50, 0, 1)
    counts = [sum(t.id == task.id for t in tasks) for task in TASKS[::3]]
    assert sum(counts) == 50
    assert set(counts) == {2, 3}


def test_the_same_arguments_give_the_same_tasks_and_another_seed_others() -> None:
    part = Rising()
    assert part.next(TASKS, 8, 0, 1) == part.next(TASKS, 8, 0, 1) == Rising().next(TASKS, 8, 0, 1)
    assert part.next(TASKS, 8, 0, 1) != part.next(TASKS, 8, 0, 2)
    play(part, 1.0, step=0)
    before = part.next(TASKS, 8, 1, 1)
    play(part, 1.0, step=1)
    play(part, 1.0, step=2)
    assert part.next(TASKS, 8, 1, 1) == before, "a step that comes again keeps its level"


def test_a_resumed_curriculum_goes_on_as_it_would_have() -> None:
    whole, parted = Rising(window=2), Rising(window=2)
    for step in range(3):
        play(whole, 0.8, step=step)
        play(parted, 0.8, step=step)
    resumed = Rising(window=2)
    resumed.restore(parted.state())
    for step in range(3, 8):
        assert play(resumed, 0.8, step=step) == play(whole, 0.8, step=step)
    assert resumed.state() == whole.state()


@pytest.mark.parametrize("state", [None, {}, {"levels": [0]}, {"levels": "0", "recent": []}])
def test_the_state_of_another_part_is_a_config_error(state: object) -> None:
    with pytest.raises(ConfigError, match="expected the state of rising"):
        Rising().restore(state)  # type: ignore[arg-type]


def test_tasks_without_a_level_are_a_config_error() -> None:
    with pytest.raises(ConfigError, match="rising needs tasks that say how hard they are"):
        Rising().next([Task(id="x", seed=0)], 4, 0, 1)


def test_steps_asked_for_ahead_need_a_lag_and_with_it_know_their_level() -> None:
    with pytest.raises(ConfigError, match="set it to at least 2"):
        Rising().next(TASKS, 8, 2, 1)
    ahead, alone = (Rising(window=1, review=0.0, lag=2) for _ in range(2))
    asked = [ahead.next(TASKS, 8, step, 1) for step in range(3)]
    assert [set(levels(tasks)) for tasks in asked] == [{0}, {0}, {0}]
    for step in range(3):
        play(alone, 1.0, step=step)
    assert set(levels(alone.next(TASKS, 8, 3, 1))) == {1}


def test_outcomes_are_the_shares_of_successes_of_groups_that_were_played() -> None:
    def episode(task: Task, success: bool | None, stop: Stop = Stop.DONE) -> Trajectory:
        return Trajectory(task=task, turns=(), stop=stop, success=success)

    one, other = TASKS[:2]
    groups = [
        Group(
            task=one,
            trajectories=(
                episode(one, True),
                episode(one, False),
                episode(one, None, Stop.MAX_TURNS),
                episode(one, None, Stop.ERROR),
            ),
        ),
        Group(task=other, trajectories=(episode(other, None, Stop.TIMEOUT),)),
    ]
    [(task, share)] = outcomes_of(groups)
    assert task == one
    assert share == pytest.approx(1 / 3)
